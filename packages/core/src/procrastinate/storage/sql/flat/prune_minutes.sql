-- name: prune_minutes :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000, synchronous_commit = off.
-- settings: patience, asynchronous
-- Removes what ended longer ago than that.
delete from procrastinate_minutes as minute
where minute.partition = 0
    and minute.begins_at < statement_timestamp()
        - %(keep_us)s::bigint::float8 * interval '1 microsecond'
