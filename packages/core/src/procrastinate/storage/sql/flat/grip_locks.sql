-- name: grip_locks :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- settings: prepared
-- Returns the locks that these jobs hold, which run no longer, and keeps claims from parking jobs
-- behind them. Must be followed, in the same transaction, by release_locks. That is a statement of
-- its own, so that it sees the jobs that a claim parked while this one waited for it.
select held.lock
from procrastinate_locks as held
where held.partition = %(partition)s::smallint and held.job_id = any(%(ids)s::bigint[])
order by held.lock
for update
