-- name: make_slots_level :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, synchronous_commit = off,
--     plan_cache_mode = force_generic_plan, enable_seqscan = off.
-- {known} stands for nothing, or for: and job.task_name <> all(%(unknown_names)s::text[])
-- settings: asynchronous, prepared
-- The same as make_slots_full, for a scan of one level.
insert into procrastinate_locks as held (lock, partition, job_id)
select distinct found.lock, found.partition, null::bigint
from unnest(%(queue_names)s::text[], %(lows)s::bigint[]) as scan(queue_name, low)
cross join lateral (
    select job.lock, job.partition
    -- The ready jobs of one priority above a low-water mark. Dead index entries gather at the end that
    -- is read first, so a scan that starts above them keeps a busy queue fast. What the mark hides
    -- (late commits, retries, other priorities) is found by the next full scan.
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.queue_name = scan.queue_name
        and job.status = 'todo' and job.hold is null
        and job.priority = %(priority)s::integer and job.id > scan.low{known}
    order by job.priority desc, job.id
    limit %(scanned)s::integer
) as found
where found.lock is not null and not exists (
    select from procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.lock = found.lock
)
order by found.lock
on conflict do nothing
