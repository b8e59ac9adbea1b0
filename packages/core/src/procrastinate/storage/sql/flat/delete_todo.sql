-- name: delete_todo :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Deletes jobs that wait. Returns (id, lock) of those that it deleted.
--
-- chosen: the ids of those jobs that wait, locked in the order of their lines.
with chosen as materialized (
    select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[]) and job.status = 'todo'
    order by job.lock, job.queue_name, job.priority desc, job.id
    for update
)
delete from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id = any(array(select chosen.id from chosen))
returning job.id, job.lock
