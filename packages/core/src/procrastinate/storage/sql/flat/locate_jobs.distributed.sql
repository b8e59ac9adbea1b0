-- name: locate_jobs :many
-- settings: one_connection
-- Returns (id, partition) of those of these jobs that there are.
select job.id, job.partition
from procrastinate_jobs as job
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
where job.partition = any(%(partitions)s::smallint[]) and job.id = any(%(ids)s::bigint[])
