-- name: abort_requests :many
-- settings: one_connection
-- Returns which of this worker's running jobs are to be aborted.
select job.id
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'doing'
    and job.worker_id = %(worker_id)s::bigint
    and job.abort_requested
