-- name: list_queues :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns (queue, jobs in all, and by status) for each queue.
--
-- How many jobs there are, in all and by status.
select job.queue_name, count(*),
    count(*) filter (where job.status = 'todo'),
    count(*) filter (where job.status = 'doing'),
    count(*) filter (where job.status = 'succeeded'),
    count(*) filter (where job.status = 'failed'),
    count(*) filter (where job.status = 'cancelled'),
    count(*) filter (where job.status = 'aborted')
from procrastinate_jobs as job
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
where job.partition = any(%(partitions)s::smallint[])
    and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
    and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
    and (%(lock)s::text is null or job.lock = %(lock)s::text)
group by job.queue_name
order by job.queue_name
