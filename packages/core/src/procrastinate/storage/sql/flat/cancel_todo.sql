-- name: cancel_todo :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Cancels jobs that wait. Returns (id, lock) of those that it cancelled.
--
-- chosen: the ids of those jobs that wait, locked in the order of their lines.
with chosen as materialized (
    select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[]) and job.status = 'todo'
    order by job.lock, job.queue_name, job.priority desc, job.id
    for update
)
update procrastinate_jobs as job
set status = 'cancelled', hold = null, finished_at = statement_timestamp()
where job.partition = %(partition)s::smallint and job.id = any(array(select chosen.id from chosen))
returning job.id, job.lock
