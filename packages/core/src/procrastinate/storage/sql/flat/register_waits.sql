-- name: register_waits :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- settings: prepared
-- Enters that a process waits for these jobs, or that it still does.
insert into procrastinate_waits as wait (job_id, partition, waiter, expires_at)
select
    given.id, given.partition, %(waiter)s::bigint,
    statement_timestamp() + %(lasting_us)s::bigint::float8 * interval '1 microsecond'
from (
    select one.id, %(partition)s::smallint as partition
    from pg_catalog.unnest(%(ids)s::bigint[]) as one(id)
) as given
on conflict (job_id, partition, waiter) do update set expires_at = excluded.expires_at
