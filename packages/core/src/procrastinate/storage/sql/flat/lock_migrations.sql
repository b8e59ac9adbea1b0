-- name: lock_migrations :exec
-- Lets one process at a time look at and change the schema; held until the transaction ends.
select pg_advisory_xact_lock(7238463501)
