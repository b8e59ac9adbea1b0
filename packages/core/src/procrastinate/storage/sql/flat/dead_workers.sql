-- name: dead_workers :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns (id, whether it was alone, as judge_workers has noted) for each of these workers that is
-- dead: it has given no sign of life within the timeout.
select given.id, coalesce(worker.alone, false)
from pg_catalog.unnest(%(worker_ids)s::bigint[]) as given(id)
left join procrastinate_workers as worker
    on worker.id = given.id and worker.partition = 0
where worker.id is null
    or worker.last_heartbeat
        < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
