-- name: look_at_periodics :many
-- Returns (done_until, whether it is stale, the server's time) for each of these schedules, in the
-- order given. done_until is null if the schedule is new. It is stale if it was not noted for a
-- day, or was settled by a clock that has been set back.
select
    periodic.done_until,
    coalesce(
        periodic.seen_at < statement_timestamp() - interval '1 day'
            or periodic.seen_at > statement_timestamp() + interval '3 hours'
            or periodic.done_until > statement_timestamp() + interval '3 hours',
        false
    ),
    statement_timestamp()
from unnest(%(task_names)s::text[], %(periodic_ids)s::text[])
    with ordinality as mine(task_name, periodic_id, place)
left join procrastinate_periodic as periodic
    on periodic.task_name = mine.task_name and periodic.periodic_id = mine.periodic_id
        and periodic.partition = 0
order by mine.place
