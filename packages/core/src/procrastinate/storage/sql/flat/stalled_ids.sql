-- name: stalled_ids :many
-- settings: one_connection
-- Returns (id, partition) of the running jobs of these dead workers, and of none.
select job.id, job.partition
from procrastinate_jobs as job
-- True of a running job whose worker is one of these dead ones, or null.
where job.partition = %(partition)s::smallint and job.status = 'doing'
    and (job.worker_id is null or job.worker_id = any(%(dead_ids)s::bigint[]))
order by job.id
limit %(limit)s::integer
