-- name: unregister_worker :exec
delete from procrastinate_workers as worker
where worker.id = %(worker_id)s::bigint and worker.partition = 0
