-- name: note_periodics :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Notes of these schedules, which are stale, that they are still in use, and what they are. If the clock was set back
-- by more than 3 hours, a schedule starts again from now. After less it waits, so that no tick
-- comes twice. A schedule that another transaction has in hand is left to that one.
update procrastinate_periodic as periodic
set seen_at = stale.seen_at, done_until = stale.done_until, cron = stale.cron,
    timezone = stale.timezone, queue_name = stale.queue_name
from (
    -- stale: the schedules, locked, with the times that they get.
    select
        periodic.task_name, periodic.periodic_id, statement_timestamp() as seen_at,
        case
            when periodic.done_until > statement_timestamp() + interval '3 hours'
                then statement_timestamp()
            else periodic.done_until
        end as done_until,
        mine.cron, mine.timezone, mine.queue_name
    -- Schedules, and what they say of themselves to those who do not have the code.
    from unnest(
        %(task_names)s::text[], %(periodic_ids)s::text[], %(crons)s::text[], %(timezones)s::text[],
        %(queue_names)s::text[]
    ) as mine(task_name, periodic_id, cron, timezone, queue_name)
    join procrastinate_periodic as periodic
        on periodic.task_name = mine.task_name and periodic.periodic_id = mine.periodic_id
            and periodic.partition = 0
    for update of periodic skip locked
) as stale
where periodic.task_name = stale.task_name and periodic.periodic_id = stale.periodic_id
    and periodic.partition = 0
