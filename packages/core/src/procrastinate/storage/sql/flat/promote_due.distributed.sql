-- name: promote_due :one
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Makes scheduled jobs ready whose time has come, and wakes the workers of their queues. Returns
-- (how many, microseconds until the next one or null, how many queues have been woken).
--
-- due: the jobs whose time has come, up to the limit.
with due as materialized (
    select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'schedule'
        and job.scheduled_at <= statement_timestamp()
        -- What an index cannot hold stays where it is: it would keep all others from being promoted.
        -- (The table's checks allow no such row.)
        and char_length(job.queue_name) <= 128
        and (job.lock is null or char_length(job.lock) <= 512)
    order by job.scheduled_at
    limit %(limit)s::integer
    for update skip locked
),
-- promoted: the same, ready now.
promoted as (
    update procrastinate_jobs as job
    set hold = null
    where job.partition = %(partition)s::smallint and job.id = any(array(select due.id from due))
    returning job.queue_name
),
-- news: each queue in which a job is ready; one row at least.
news as materialized (
    select promoted.queue_name
    from (select 1) as one
    left join promoted on true
    group by promoted.queue_name
)
-- How many, and the microseconds until the next one.
select
    (select count(*) from promoted)::integer,
    (
        select (
            extract(
                epoch from least(job.scheduled_at, '9999-12-29 00:00+00')
                    - statement_timestamp()
            ) * 1000000.0
        )::bigint
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'schedule'
            and job.scheduled_at > statement_timestamp()
        order by job.scheduled_at
        limit 1
    ),
    0,
    case when news.queue_name is not null then 'procrastinate_jobs' end as channel,
    -- What a notification of a distributed database says: the queue of a job, and its partition.
    news.queue_name || '@'::text || %(partition)s::smallint::text as payload
from news
