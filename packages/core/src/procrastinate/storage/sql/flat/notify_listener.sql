-- name: notify_listener :exec
-- Sends an empty notification, for a listener that checks whether it still hears.
select pg_catalog.pg_notify(%(channel)s::text, '')
