-- name: place_of_job :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns, of a job whose queue, priority and lock are known: (the time, whether its abortion was
-- asked for, since when no worker knows its task, how many ready jobs come before it, who holds its
-- lock, the first ready job with its lock, how many jobs are before it in its line).
with held as materialized (
    select held.job_id
    from procrastinate_locks as held
    where held.lock = %(lock)s::text and held.partition = %(partition)s::smallint
)
select
    statement_timestamp(),
    job.abort_requested::integer,
    -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
    -- single row from before it, or without it, would keep all others from being read. (CASE, because
    -- `greatest` passes over a null.)
    case when job.unknown_since is not null then
        least(greatest(job.unknown_since, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end,
    -- How many jobs come before another one, by its priority or by its id; more than `counted` are not
    -- counted.
    (
        select count(*)
        from (
            -- (In order, so that the planner takes the index.)
            (select job.id
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null
                and job.queue_name = %(queue_name)s::text and job.priority > %(priority)s::integer
            order by job.priority desc, job.id
            limit %(counted)s::integer)
            union all
            (select job.id
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null
                and job.queue_name = %(queue_name)s::text and job.priority = %(priority)s::integer and job.id < %(id)s::bigint
            order by job.priority desc, job.id
            limit %(counted)s::integer)
            limit %(counted)s::integer
        ) as job
    ),
    held.job_id,
    (
        select job.id
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.lock is not null
            and job.status = 'todo' and job.hold is distinct from 'schedule'
            and job.hold is null and job.lock = %(lock)s::text and job.id <> %(id)s::bigint
        order by job.queue_name, job.priority desc, job.id
        limit 1
    ),
    (
        select count(*)
        from (
            (select job.id
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.lock is not null
                and job.status = 'todo' and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.lock = %(lock)s::text and job.queue_name = %(queue_name)s::text and job.priority > %(priority)s::integer
            order by job.priority desc, job.id
            limit %(counted)s::integer)
            union all
            (select job.id
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.lock is not null
                and job.status = 'todo' and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.lock = %(lock)s::text and job.queue_name = %(queue_name)s::text and job.priority = %(priority)s::integer and job.id < %(id)s::bigint
            order by job.priority desc, job.id
            limit %(counted)s::integer)
            limit %(counted)s::integer
        ) as job
    )
from procrastinate_jobs as job
left join held on true
where job.partition = %(partition)s::smallint and job.id = %(id)s::bigint
