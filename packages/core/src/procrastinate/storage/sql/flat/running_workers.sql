-- name: running_workers :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- settings: one_connection
-- Returns (id, how many jobs, partition) for each worker that holds running jobs in a partition. The
-- id is null for those that no worker holds, after a change by hand.
select job.worker_id, count(*), job.partition
from procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.status = 'doing'
group by job.worker_id, job.partition
