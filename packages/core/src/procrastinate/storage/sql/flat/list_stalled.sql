-- name: list_stalled :many
-- Returns the jobs that run on these dead workers, or on none.
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
-- True of a running job of one of these workers, which are dead, or of none.
where job.partition = %(partition)s::smallint and job.status = 'doing'
    and (job.worker_id is null or job.worker_id = any(%(dead_ids)s::bigint[]))
    and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
    and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
order by job.id
