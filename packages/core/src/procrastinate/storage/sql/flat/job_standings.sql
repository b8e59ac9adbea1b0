-- name: job_standings :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns what the rows of these jobs say now, for jobs that a write did not change.
select job.id, job.status::text, job.worker_id, job.lease, job.crashes
from procrastinate_jobs as job
-- Jobs are looked up by id. The array hides how many there are: the planner expects ten ids and
-- uses the primary key. When it knew the number, it scanned small tables from end to end.
where job.partition = %(partition)s::smallint and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
