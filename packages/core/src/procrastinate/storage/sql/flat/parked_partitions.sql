-- name: parked_partitions :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- settings: one_connection
-- Returns the partitions that have parked jobs: where idle_lines may find something.
select %(partition)s::smallint
where exists (
    select from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
        and job.hold is distinct from 'schedule' and job.hold = 'lock'
)
