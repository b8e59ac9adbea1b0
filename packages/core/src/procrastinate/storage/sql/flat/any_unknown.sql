-- name: any_unknown :many
-- settings: one_connection
-- Returns the partitions in which jobs wait whose task has been unknown to workers for longer than
-- the patience.
select distinct job.partition
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'todo'
    and job.unknown_since <= statement_timestamp()
        - %(patience_us)s::bigint::float8 * interval '1 microsecond'
