-- name: glance_at_queues :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = off.
-- settings: in_order
-- Returns (what, queue, how many, since when the oldest of them is ready) for what there is to see
-- of queues: 'ready', 'scheduled', 'parked', 'running', 'failed'. It counts at most `share` ready jobs of
-- each of these queues, and `each` jobs of each other sort (of the failed ones the newest). A row without
-- a queue says how many of a sort were counted.
--
-- ready: how many jobs of each queue are ready, as far as they are counted.
with ready as materialized (
    select queue.name, counted.jobs, least(counted.since, last.since) as since
    from pg_catalog.unnest(%(queue_names)s::text[]) as queue(name)
    cross join lateral (
        select count(*) as jobs, min(greatest(job.deferred_at, job.scheduled_at)) as since
        from (
            select job.deferred_at, job.scheduled_at
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.status = 'todo'
                and job.hold is null and job.queue_name = queue.name
            order by job.priority desc, job.id
            limit %(share)s::integer
        ) as job
    ) as counted
    -- The first of the lowest priority has often waited longest.
    left join lateral (
        select greatest(job.deferred_at, job.scheduled_at) as since
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.status = 'todo'
            and job.hold is null and job.queue_name = queue.name
            and job.priority = (
                select job.priority
                from procrastinate_jobs as job
                where job.partition = %(partition)s::smallint and job.status = 'todo'
                    and job.hold is null and job.queue_name = queue.name
                order by job.priority, job.id desc
                limit 1
            )
        order by job.id
        limit 1
    ) as last on true
),
scheduled as materialized (
    select job.queue_name
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'schedule'
    order by job.scheduled_at
    limit %(each)s::integer
),
parked as materialized (
    select job.queue_name
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
        and job.hold is distinct from 'schedule' and job.hold = 'lock'
    order by job.lock, job.queue_name, job.priority desc, job.id
    limit %(each)s::integer
),
running as materialized (
    select job.queue_name
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'doing'
    order by job.worker_id
    limit %(each)s::integer
),
failed as materialized (
    select job.queue_name
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'failed'
    order by job.id desc
    limit %(each)s::integer
)
-- A time, or the nearest one that every driver can read. The table's check sees to that, but a
-- single row from before it, or without it, would keep all others from being read. (CASE, because
-- `greatest` passes over a null.)
select seen.what, seen.name, seen.jobs, case when seen.since is not null then
    least(greatest(seen.since, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
end
from (
    select 'ready' as what, ready.name, ready.jobs, ready.since from ready
    union all
    select 'scheduled', scheduled.queue_name, count(*), null::timestamptz
    from scheduled
    group by grouping sets (scheduled.queue_name, ())
    union all
    select 'parked', parked.queue_name, count(*), null::timestamptz
    from parked
    group by grouping sets (parked.queue_name, ())
    union all
    select 'running', running.queue_name, count(*), null::timestamptz
    from running
    group by grouping sets (running.queue_name, ())
    union all
    select 'failed', failed.queue_name, count(*), null::timestamptz
    from failed
    group by grouping sets (failed.queue_name, ())
) as seen
order by seen.what collate "C", seen.name collate "C"
