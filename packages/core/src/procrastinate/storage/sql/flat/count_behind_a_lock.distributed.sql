-- name: count_behind_a_lock :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns (queue, number of jobs behind a lock).
-- (The last two conditions are always true, and let the planner use the index of lines: 50,000 among
-- 5 million took 0.2 s, and 3.3 s without them.)
select job.queue_name, count(*)::bigint
from procrastinate_jobs as job
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
where job.partition = any(%(partitions)s::smallint[]) and job.status = 'todo' and job.hold = 'lock' and job.lock is not null and job.hold is distinct from 'schedule'
group by job.queue_name
