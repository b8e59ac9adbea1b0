-- name: stalled_ids :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- settings: one_connection
-- Returns (id, partition) of the running jobs of these dead workers, and of none.
select job.id, job.partition
from procrastinate_jobs as job
-- True of a running job whose worker is one of these dead ones, or null.
--
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
where job.partition = any(%(partitions)s::smallint[]) and job.status = 'doing'
    and (job.worker_id is null or job.worker_id = any(%(dead_ids)s::bigint[]))
order by job.id
limit %(limit)s::integer
