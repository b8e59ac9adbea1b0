-- name: enter_periodics :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Enters those of these schedules that are new. They start now.
insert into procrastinate_periodic as periodic
    (task_name, periodic_id, partition, done_until, seen_at, cron, timezone, queue_name)
select
    mine.task_name, mine.periodic_id, 0, statement_timestamp(), statement_timestamp(),
    mine.cron, mine.timezone, mine.queue_name
-- Schedules, and what they say of themselves to those who do not have the code.
from unnest(
    %(task_names)s::text[], %(periodic_ids)s::text[], %(crons)s::text[], %(timezones)s::text[],
    %(queue_names)s::text[]
) as mine(task_name, periodic_id, cron, timezone, queue_name)
order by mine.task_name, mine.periodic_id
on conflict (task_name, periodic_id, partition) do nothing
