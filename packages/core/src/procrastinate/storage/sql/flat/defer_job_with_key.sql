-- name: defer_job_with_key :one
-- It runs with jit = off, transaction_isolation = read committed.
-- settings: only, jit, isolation
-- The same as defer_job, for a job with a partition key, which a server with one partition ignores.
select procrastinate_defer_job_with_key(
    %(task_name)s::text, %(partition_key)s::text, %(args)s::jsonb, %(queue_name)s::text,
    %(priority)s::integer, %(lock)s::text, %(queueing_lock)s::text,
    coalesce(
        %(scheduled_at)s::timestamptz,
        statement_timestamp() + %(schedule_in_us)s::bigint::float8 * interval '1 microsecond'
    ),
    'procrastinate_jobs'::regclass,
    %(meta)s::jsonb
)
