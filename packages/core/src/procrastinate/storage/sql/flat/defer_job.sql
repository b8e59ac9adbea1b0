-- name: defer_job :one
-- It runs with jit = off, transaction_isolation = read committed.
-- settings: only, jit, isolation
-- Inserts one job and wakes the workers: on procrastinate_jobs when it is ready, on
-- procrastinate_schedule when it is due within a minute. (A worker looks at the schedule twice a
-- minute; without the second channel a job due in a second would start at the next look.)
-- Returns its id, or null when a job with the same queueing lock is waiting.
-- (By the function that other languages call, too: each session plans its INSERT once. As a statement
-- of its own it took the server 316 microseconds, and as this call 225. All parameters are given:
-- another role's function with fewer of them would fit a shorter call as well.)
select procrastinate_defer_job(
    %(task_name)s::text, %(args)s::jsonb, %(queue_name)s::text, %(priority)s::integer,
    %(lock)s::text, %(queueing_lock)s::text,
    %(scheduled_at)s::timestamptz,
    'procrastinate_jobs'::regclass,
    %(meta)s::jsonb
)
