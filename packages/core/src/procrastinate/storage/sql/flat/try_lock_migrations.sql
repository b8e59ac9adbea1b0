-- name: try_lock_migrations :one
-- Lets one process at a time change the schema; held until the transaction ends. It does not wait: CREATE
-- INDEX CONCURRENTLY waits for all who wait in a statement, and they would wait for it. The process that has
-- the lock holds no snapshot for the same reason, and is idle meanwhile.
-- settings: idle
select pg_try_advisory_xact_lock(7238463502)
