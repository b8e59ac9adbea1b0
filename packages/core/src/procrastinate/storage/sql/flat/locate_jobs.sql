-- name: locate_jobs :many
-- settings: one_connection
-- Returns (id, partition) of those of these jobs that there are.
select job.id, job.partition
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[])
