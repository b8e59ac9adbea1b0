-- name: count_aborted :many
-- Returns (queue, number of aborted jobs).
select job.queue_name, count(*)::bigint
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'aborted'
group by job.queue_name
