-- name: enter_periodics :exec
-- Enters those of these schedules that are new. They start now.
insert into procrastinate_periodic as periodic
    (task_name, periodic_id, partition, done_until, seen_at)
select mine.task_name, mine.periodic_id, 0, statement_timestamp(), statement_timestamp()
from unnest(%(task_names)s::text[], %(periodic_ids)s::text[]) as mine(task_name, periodic_id)
order by mine.task_name, mine.periodic_id
on conflict (task_name, periodic_id, partition) do nothing
