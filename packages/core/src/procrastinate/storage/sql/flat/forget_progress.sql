-- name: forget_progress :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000.
-- settings: patience
-- Removes what attempts have reported that are over. A later attempt's report stays.
delete from procrastinate_progress as progress
using unnest(%(ids)s::bigint[], %(leases)s::integer[]) as ended(id, lease)
where progress.partition = %(partition)s::smallint
    and progress.job_id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
    and progress.job_id = ended.id and progress.lease <= ended.lease
