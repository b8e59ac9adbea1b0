-- name: unregister_worker :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Removes a worker that ends.
delete from procrastinate_workers as worker
where worker.id = %(worker_id)s::bigint and worker.partition = 0
