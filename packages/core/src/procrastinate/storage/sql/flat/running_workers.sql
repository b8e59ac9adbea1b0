-- name: running_workers :many
-- settings: one_connection
-- Returns (id, how many jobs, partition) for each worker that holds running jobs in a partition. The
-- id is null for those that no worker holds, after a change by hand.
select job.worker_id, count(*), job.partition
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'doing'
group by job.worker_id, job.partition
