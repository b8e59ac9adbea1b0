-- name: register_worker :one
-- Enters a worker and returns its id.
insert into procrastinate_workers (name, host, concurrency, task_names)
values (%(name)s::text, %(host)s::text, %(concurrency)s::integer, %(task_names)s::text[])
returning id
