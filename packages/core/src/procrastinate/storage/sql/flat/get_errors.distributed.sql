-- name: get_errors :many
-- settings: one_connection
-- Returns the errors of a job. (Its worker does not get them with the claim.)
select job.errors::text as errors
from procrastinate_jobs as job
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
where job.id = %(id)s::bigint and job.partition = any(%(partitions)s::smallint[])
