-- name: held_jobs :many
-- Returns the jobs that this worker holds, as the database sees it: after a claim whose answer was
-- lost.
--
-- What the worker does not know of a job that it has just got. The time is the same for all, so it
-- is said once.
select job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
    job.queueing_lock, job.attempts, job.deferred_at, job.scheduled_at, job.lease,
    nullif(job.crashes, 0) as crashes
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'doing'
    and job.worker_id = %(worker_id)s::bigint
order by job.id
