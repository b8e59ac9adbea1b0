-- name: notify_listener :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Sends an empty notification, for a listener that checks whether it still hears.
select pg_catalog.pg_notify(%(channel)s::text, '')
