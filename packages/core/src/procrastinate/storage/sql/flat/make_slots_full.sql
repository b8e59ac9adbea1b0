-- name: make_slots_full :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, synchronous_commit = off,
--     plan_cache_mode = force_generic_plan, enable_seqscan = off.
-- {known} stands for nothing, or for: and job.task_name <> all(%(unknown_names)s::text[])
-- settings: asynchronous, prepared
-- Makes the slots that are missing of the locks which a full scan is about to meet: free ones,
-- without a job. Only a distributed database needs this, in front of each claim with locks: a claim that
-- inserts and goes on would not stay on one node, so there it only takes slots that exist.
insert into procrastinate_locks as held (lock, partition, job_id)
select distinct found.lock, found.partition, null::bigint
from unnest(%(queue_names)s::text[], %(lows)s::bigint[]) as scan(queue_name, low)
cross join lateral (
    select job.lock, job.partition
    -- The ready jobs of a queue with a priority above `above`: that of the jobs which the worker is busy
    -- with, or, to scan all, a number below every integer.
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.queue_name = scan.queue_name
        and job.status = 'todo' and job.hold is null
        and job.priority > %(above)s::bigint{known}
    order by job.priority desc, job.id
    limit %(scanned)s::integer
) as found
where found.lock is not null and not exists (
    select from procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.lock = found.lock
)
order by found.lock
on conflict do nothing
