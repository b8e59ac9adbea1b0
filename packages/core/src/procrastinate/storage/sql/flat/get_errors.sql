-- name: get_errors :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- settings: one_connection
-- Returns the errors of a job. (Its worker does not get them with the claim.)
select job.errors::text as errors
from procrastinate_jobs as job
where job.id = %(id)s::bigint and job.partition = %(partition)s::smallint
