-- name: notify_listener :exec
-- Sends an empty notification, for a listener that wants to know whether it still hears.
select pg_notify(%(channel)s::text, '')
