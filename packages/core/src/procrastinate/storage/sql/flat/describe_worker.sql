-- name: describe_worker :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Writes down again what a worker's registration had said, after its sign of life has made a new
-- row.
update procrastinate_workers as worker
set host = %(host)s::text, concurrency = %(concurrency)s::integer,
    task_names = %(task_names)s::text[], pid = %(pid)s::integer, version = %(version)s::text,
    queues = %(queues)s::text[]
where worker.id = %(worker_id)s::bigint and worker.partition = 0
