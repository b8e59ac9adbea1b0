-- name: count_scheduled :many
-- Returns (queue, number of scheduled jobs).
select job.queue_name, count(*)::bigint
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'schedule'
group by job.queue_name
