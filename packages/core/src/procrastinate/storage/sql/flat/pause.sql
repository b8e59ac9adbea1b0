-- name: pause :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Waits here, because flows have no clock.
select pg_sleep(%(seconds)s::integer::float8)
