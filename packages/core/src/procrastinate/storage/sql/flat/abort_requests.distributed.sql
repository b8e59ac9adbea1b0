-- name: abort_requests :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- settings: one_connection
-- Returns which of this worker's running jobs are to be aborted.
select job.id
from procrastinate_jobs as job
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
where job.partition = any(%(partitions)s::smallint[]) and job.status = 'doing'
    and job.worker_id = %(worker_id)s::bigint
    and job.abort_requested
