-- name: prune_workers :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Removes workers that have given no sign of life within the timeout, but for these, which hold
-- jobs.
delete from procrastinate_workers as worker
where worker.partition = 0
    and worker.last_heartbeat
        < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
    and worker.id <> all(%(busy_ids)s::bigint[])
