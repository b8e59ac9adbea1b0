-- name: count_cancelled :many
-- Returns (queue, number of cancelled jobs).
select job.queue_name, count(*)::bigint
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'cancelled'
group by job.queue_name
