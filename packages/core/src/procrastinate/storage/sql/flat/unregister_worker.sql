-- name: unregister_worker :exec
-- Removes a worker that ends.
delete from procrastinate_workers as worker
where worker.id = %(worker_id)s::bigint and worker.partition = 0
