-- name: settle_ticks :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, array_nulls = on.
-- settings: array_nulls
-- Lets the schedules of these ticks, which this transaction has in hand, remember their last tick
-- and its job. The id is null if no job was inserted for a tick. (The latest job need not have the
-- highest id: they come in another order than their ticks, and from many partitions.)
update procrastinate_periodic as periodic
set done_until = latest.done_until,
    last_tick = coalesce(latest.last_tick, periodic.last_tick),
    job_id = coalesce(latest.job_id, periodic.job_id),
    seen_at = statement_timestamp()
from (
    select
        told.task_name, told.periodic_id,
        max(told.tick::timestamptz) as done_until,
        max(told.tick::timestamptz) filter (where told.job_id is not null) as last_tick,
        (array_agg(told.job_id order by told.tick::timestamptz desc)
            filter (where told.job_id is not null))[1] as job_id
    from unnest(
        %(task_names)s::text[], %(periodic_ids)s::text[], %(ticks)s::text[], %(job_ids)s::bigint[]
    ) as told(task_name, periodic_id, tick, job_id)
    group by told.task_name, told.periodic_id
) as latest
where periodic.task_name = latest.task_name and periodic.periodic_id = latest.periodic_id
    and periodic.partition = 0
