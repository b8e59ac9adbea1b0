-- name: count_failed :many
-- Returns (queue, number of failed jobs).
select job.queue_name, count(*)::bigint
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'failed'
group by job.queue_name
