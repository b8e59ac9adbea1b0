-- name: remove_waits :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- settings: prepared
-- Removes the rows of a process for these jobs.
delete from procrastinate_waits as wait
where wait.partition = %(partition)s::smallint and wait.waiter = %(waiter)s::bigint
    and wait.job_id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
