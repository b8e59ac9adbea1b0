-- name: reported_partitions :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- settings: one_connection
-- Returns the partitions that have reports. Mostly none has.
select distinct progress.partition
from procrastinate_progress as progress
where progress.partition = %(partition)s::smallint
