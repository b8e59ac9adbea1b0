-- name: describe_worker :exec
-- Says of a worker that was entered anew by its sign of life what its registration had said.
update procrastinate_workers as worker
set host = %(host)s::text, concurrency = %(concurrency)s::integer, task_names = %(task_names)s::text[]
where worker.id = %(worker_id)s::bigint and worker.partition = 0
