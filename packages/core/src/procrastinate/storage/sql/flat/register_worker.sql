-- name: register_worker :one
-- settings: patience
-- Enters a worker and returns its id.
insert into procrastinate_workers
    (name, host, concurrency, task_names, pid, version, queues)
values (
    %(name)s::text, %(host)s::text, %(concurrency)s::integer, %(task_names)s::text[],
    %(pid)s::integer, %(version)s::text, %(queues)s::text[]
)
returning id
