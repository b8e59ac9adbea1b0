-- name: list_stalled :many
-- Returns the jobs that run on a worker which has given no sign of life within the timeout.
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
-- True of a running job whose worker has given no sign of life within the timeout.
where job.partition = %(partition)s::smallint and job.status = 'doing'
    and not exists (
        select from procrastinate_workers as worker
        where worker.id = job.worker_id and worker.partition = 0
            and worker.last_heartbeat
                >= statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
    )
    and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
    and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
order by job.id
