-- name: parked_partitions :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- settings: one_connection
-- Returns the partitions that have parked jobs: where idle_lines may find something.
select distinct job.partition
from procrastinate_jobs as job
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
where job.partition = any(%(partitions)s::smallint[]) and job.lock is not null and job.status = 'todo'
    and job.hold is distinct from 'schedule' and job.hold = 'lock'
