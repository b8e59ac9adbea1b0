-- name: pause :exec
-- Waits here, because flows have no clock.
select pg_sleep(%(seconds)s::integer::float8)
