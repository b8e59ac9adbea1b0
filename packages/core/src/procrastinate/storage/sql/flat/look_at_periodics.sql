-- name: look_at_periodics :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns (done_until, whether it is stale, the server's time) for each of these schedules, in the
-- order given. done_until is null if the schedule is new. It is stale if it was not noted for a
-- day, if what it says of itself has changed, or if it was settled by a clock that has been set back.
select
    periodic.done_until,
    coalesce(
        periodic.seen_at < statement_timestamp() - interval '1 day'
            or periodic.seen_at > statement_timestamp() + interval '3 hours'
            or periodic.done_until > statement_timestamp() + interval '3 hours'
            or (periodic.task_name is not null and (
                periodic.cron is distinct from mine.cron
                or periodic.timezone is distinct from mine.timezone
                or periodic.queue_name is distinct from mine.queue_name
            )),
        false
    ),
    statement_timestamp()
-- Schedules, and what they say of themselves to those who do not have the code.
from unnest(
    %(task_names)s::text[], %(periodic_ids)s::text[], %(crons)s::text[], %(timezones)s::text[],
    %(queue_names)s::text[]
) with ordinality
    as mine(task_name, periodic_id, cron, timezone, queue_name, place)
left join procrastinate_periodic as periodic
    on periodic.task_name = mine.task_name and periodic.periodic_id = mine.periodic_id
        and periodic.partition = 0
order by mine.place
