-- name: job_standings :many
-- Returns what the rows of these jobs say now, for jobs that a write did not change.
select job.id, job.status::text, job.worker_id, job.lease, job.crashes
from procrastinate_jobs as job
-- Jobs are looked up by id. The list has an unknown length, so the planner takes it to be short: if
-- it could count the ids, it read small tables from end to end.
where job.partition = %(partition)s::smallint and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
