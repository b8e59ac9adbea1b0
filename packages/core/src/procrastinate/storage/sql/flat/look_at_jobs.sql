-- name: look_at_jobs :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- settings: prepared
-- Returns (id, status) of those of these jobs that are there.
select job.id, job.status::text
from procrastinate_jobs as job
-- Jobs are looked up by id. The array hides how many there are: the planner expects ten ids and
-- uses the primary key. When it knew the number, it scanned small tables from end to end.
where job.partition = %(partition)s::smallint and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
