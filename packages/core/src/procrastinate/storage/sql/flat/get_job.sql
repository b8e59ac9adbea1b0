-- name: get_job :many
-- Returns one job, or no row.
--
-- All that is shown of a job.
--
-- What the worker does not know of a job that it has just got. The time is the same for all, so it
-- is said once.
select job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
    job.queueing_lock, job.attempts, job.deferred_at, job.scheduled_at, job.lease,
    nullif(job.crashes, 0) as crashes, job.errors::text as errors, job.status::text as status, job.started_at,
    job.finished_at, job.worker_id
from procrastinate_jobs as job
where job.id = %(id)s::bigint and job.partition = %(partition)s::smallint
