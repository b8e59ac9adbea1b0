-- name: remove_waits :exec
-- settings: prepared
-- Removes the rows of a process for these jobs.
delete from procrastinate_waits as wait
where wait.partition = %(partition)s::smallint and wait.waiter = %(waiter)s::bigint
    and wait.job_id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
