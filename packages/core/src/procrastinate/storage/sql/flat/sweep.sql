-- name: sweep :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- {known} stands for nothing, or for: and job.task_name <> all(%(unknown_names)s::text[])
-- {unpaused job} stands for nothing, or for:
--     and job.queue_name <> all(%(paused)s::text[])
--     and (job.queue_name = 'builtin' or '*' <> all(%(paused)s::text[]))
-- (A pause of all queues, '*', spares the queue builtin.)
-- settings: one_connection
-- Looks at all partitions for jobs that nobody announced. Returns (partition, how many jobs are
-- ready in these queues (null: in all), how many in others, microseconds until the next scheduled
-- one is due or null, the queue of the former if they are all of one) for each partition that has any.
select
    found.partition, sum(found.ready)::bigint, sum(found.elsewhere)::bigint,
    min(found.due_us)::bigint,
    case when min(found.lowest) = max(found.highest) then min(found.lowest) end
from (
    select
        job.partition, count(*) filter (where (%(queue_names)s::text[] is null or job.queue_name = any(%(queue_names)s::text[])){known}) as ready,
        count(*) filter (where not ((%(queue_names)s::text[] is null or job.queue_name = any(%(queue_names)s::text[])){known})) as elsewhere, null::bigint as due_us,
        min(job.queue_name) filter (where (%(queue_names)s::text[] is null or job.queue_name = any(%(queue_names)s::text[])){known}) as lowest,
        max(job.queue_name) filter (where (%(queue_names)s::text[] is null or job.queue_name = any(%(queue_names)s::text[])){known}) as highest
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null{unpaused job}
    group by job.partition
    union all
    select
        job.partition, 0, 0, (
            extract(
                epoch from least(min(job.scheduled_at), '9999-12-29 00:00+00')
                    - statement_timestamp()
            ) * 1000000.0
        )::bigint, null::text, null::text
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'schedule'
    group by job.partition
) as found
group by found.partition
