-- name: try_lock_migrations :one
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, idle_in_transaction_session_timeout = 0.
-- Lets one process at a time change the schema; held until the transaction ends. It does not wait: CREATE
-- INDEX CONCURRENTLY waits for all who wait in a statement, and they would wait for it. The process that has
-- the lock holds no snapshot for the same reason, and is idle meanwhile.
-- settings: idle
select pg_try_advisory_xact_lock(7238463502)
