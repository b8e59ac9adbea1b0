-- name: list_schedules :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns all schedules that workers have entered.
select
    periodic.task_name, periodic.periodic_id, periodic.cron, periodic.timezone,
    -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
    -- single row from before it, or without it, would keep all others from being read. (CASE, because
    -- `greatest` passes over a null.)
    periodic.queue_name, case when periodic.done_until is not null then
        least(greatest(periodic.done_until, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end,
    case when periodic.last_tick is not null then
        least(greatest(periodic.last_tick, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end, periodic.job_id,
    case when periodic.seen_at is not null then
        least(greatest(periodic.seen_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end
from procrastinate_periodic as periodic
where periodic.partition = 0
order by periodic.task_name, periodic.periodic_id
