-- name: any_expired_waits :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- settings: one_connection
-- Returns the partitions that have rows of processes that went away without removing them.
select distinct wait.partition
from procrastinate_waits as wait
where wait.partition = %(partition)s::smallint and wait.expires_at < statement_timestamp()
