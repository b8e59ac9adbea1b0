-- name: count_behind_a_lock :many
-- Returns (queue, number of behind a lock jobs).
select job.queue_name, count(*)::bigint
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'lock'
group by job.queue_name
