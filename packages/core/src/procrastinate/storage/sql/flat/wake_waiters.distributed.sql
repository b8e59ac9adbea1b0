-- name: wake_waiters :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- settings: prepared
-- Notifies each process that waits for the end of any of these jobs, which have ended or are gone.
-- The payload is their ids, in several notifications if it would be longer than 7,000 bytes.
--
-- Who waits listens on the coordinator, so a node cannot notify: it returns channels and payloads.
select null::text, news.channel, news.payload
from (
    select
        'procrastinate_ends_'::text || awaited.waiter::text as channel,
        string_agg(awaited.job_id::text, ' '::text order by awaited.job_id) as payload
    from (
        -- An id and a space are 20 bytes at most.
        select
            wait.waiter, wait.job_id,
            (row_number() over (partition by wait.waiter order by wait.job_id) - 1) / 350 as part
        from procrastinate_waits as wait
        where wait.partition = %(partition)s::smallint and wait.job_id = any(%(ids)s::bigint[])
    ) as awaited
    group by awaited.waiter, awaited.part
) as news
