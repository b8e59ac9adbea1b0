-- name: count_running :many
-- Returns (queue, number of running jobs).
select job.queue_name, count(*)::bigint
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'doing'
group by job.queue_name
