-- name: count_succeeded :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns (queue, number of succeeded jobs).
select job.queue_name, count(*)::bigint
from procrastinate_jobs as job
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
where job.partition = any(%(partitions)s::smallint[]) and job.status = 'succeeded'
group by job.queue_name
