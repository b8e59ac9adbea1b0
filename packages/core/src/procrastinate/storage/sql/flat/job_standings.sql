-- name: job_standings :many
-- What the rows of these jobs say: of those that a write did not match.
select job.id, job.status::text, job.worker_id, job.lease, job.crashes
from procrastinate_jobs as job
-- A list of unknown length, which the planner takes to be short: for one that it can count it read small
-- tables from end to end.
where job.partition = 0 and job.id = any(array(select unnest(%(ids)s::bigint[])))
