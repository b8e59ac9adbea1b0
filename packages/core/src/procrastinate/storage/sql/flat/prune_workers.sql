-- name: prune_workers :exec
-- Removes workers that have given no sign of life within the timeout and hold no job.
delete from procrastinate_workers as worker
where worker.partition = 0
    and worker.last_heartbeat
        < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
    and not exists (
        select from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.status = 'doing' and job.worker_id = worker.id
    )
