-- name: any_unknown :one
-- Returns whether a job waits whose task has been unknown to workers for longer than the patience.
select exists (
    select from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo'
        and job.unknown_since <= statement_timestamp()
            - %(patience_us)s::bigint::float8 * interval '1 microsecond'
)
