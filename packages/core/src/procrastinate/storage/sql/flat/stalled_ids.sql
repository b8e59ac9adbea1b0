-- name: stalled_ids :many
-- Returns the ids of running jobs whose worker has given no sign of life within the timeout.
select job.id
from procrastinate_jobs as job
-- True of a running job whose worker has given no sign of life within the timeout.
where job.partition = %(partition)s::smallint and job.status = 'doing'
    and not exists (
        select from procrastinate_workers as worker
        where worker.id = job.worker_id and worker.partition = 0
            and worker.last_heartbeat
                >= statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
    )
order by job.id
limit %(limit)s::integer
