-- name: register_waits :exec
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- settings: prepared
-- Enters that a process waits for these jobs, or that it still does.
insert into procrastinate_waits as wait (job_id, partition, waiter, expires_at)
select
    given.id, given.partition, %(waiter)s::bigint,
    statement_timestamp() + %(lasting_us)s::bigint::float8 * interval '1 microsecond'
-- The rows of the jobs, because the node that has them is the one for the new rows. What the
-- coordinator has itself, it would send there in several steps.
from (
    select job.id, job.partition
    from procrastinate_jobs as job
    -- Jobs are looked up by id. The array hides how many there are: the planner expects ten ids and
    -- uses the primary key. When it knew the number, it scanned small tables from end to end.
    where job.partition = %(partition)s::smallint and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
) as given
on conflict (job_id, partition, waiter) do update set expires_at = excluded.expires_at
