-- name: register_worker :one
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, idle_in_transaction_session_timeout = 10000.
-- settings: awake
-- Enters a worker and returns its id. It waits for a lock on the table, as a migration takes it.
insert into procrastinate_workers
    (name, host, concurrency, task_names, pid, version, queues)
values (
    %(name)s::text, %(host)s::text, %(concurrency)s::integer, %(task_names)s::text[],
    %(pid)s::integer, %(version)s::text, %(queues)s::text[]
)
returning id
