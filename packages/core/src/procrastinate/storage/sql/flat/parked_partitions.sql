-- name: parked_partitions :many
-- settings: one_connection
-- Returns the partitions that have parked jobs: where idle_lines may find something.
select %(partition)s::smallint
where exists (
    select from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
        and job.hold is distinct from 'schedule' and job.hold = 'lock'
)
