-- name: any_unknown :one
-- Returns whether a job waits that workers have handed back since before the patience began,
-- because they know no task of its name.
select exists (
    select from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo'
        and job.unknown_since <= statement_timestamp()
            - %(patience_us)s::bigint::float8 * interval '1 microsecond'
)
