-- name: drop_stale_locks :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Gives up those of these locks whose holder is not running, in order of the lock, as all others
-- do.
with stale as materialized (
    select held.lock
    from procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.lock = any(%(locks)s::text[])
        and not exists (
            select from procrastinate_jobs as job
            where job.id = held.job_id and job.partition = %(partition)s::smallint and job.status::text = 'doing'
        )
    order by held.lock
    for update
)
delete from procrastinate_locks as held
where held.partition = %(partition)s::smallint and held.lock = any(array(select stale.lock from stale))
