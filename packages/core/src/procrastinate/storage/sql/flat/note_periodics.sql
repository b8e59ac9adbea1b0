-- name: note_periodics :exec
-- Notes of these schedules, which are stale, that they are still in use. If the clock was set back
-- by more than 3 hours, a schedule starts again from now. After less it waits, so that no tick
-- comes twice. A schedule that another transaction has in hand is left to that one.
update procrastinate_periodic as periodic
set seen_at = stale.seen_at, done_until = stale.done_until
from (
    -- stale: the schedules, locked, with the times that they get.
    select
        periodic.task_name, periodic.periodic_id, statement_timestamp() as seen_at,
        case
            when periodic.done_until > statement_timestamp() + interval '3 hours'
                then statement_timestamp()
            else periodic.done_until
        end as done_until
    from unnest(%(task_names)s::text[], %(periodic_ids)s::text[]) as mine(task_name, periodic_id)
    join procrastinate_periodic as periodic
        on periodic.task_name = mine.task_name and periodic.periodic_id = mine.periodic_id
            and periodic.partition = 0
    for update of periodic skip locked
) as stale
where periodic.task_name = stale.task_name and periodic.periodic_id = stale.periodic_id
    and periodic.partition = 0
