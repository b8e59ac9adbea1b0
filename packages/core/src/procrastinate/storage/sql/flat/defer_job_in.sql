-- name: defer_job_in :one
-- It runs with jit = off, transaction_isolation = read committed.
-- settings: only, jit, isolation
-- The same as defer_job, for a job that is due in so many microseconds. (The sum is a twelfth of the
-- server's work, so jobs without one do not ask for it.)
select procrastinate_defer_job(
    %(task_name)s::text, %(args)s::jsonb, %(queue_name)s::text, %(priority)s::integer,
    %(lock)s::text, %(queueing_lock)s::text,
    coalesce(
        %(scheduled_at)s::timestamptz,
        statement_timestamp() + %(schedule_in_us)s::bigint::float8 * interval '1 microsecond'
    ),
    'procrastinate_jobs'::regclass,
    %(meta)s::jsonb
)
