-- name: heartbeat :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Says that the worker is alive, and how it is. Returns (rank, live, now), or nothing if its row was removed,
-- because it was taken for dead. `live` counts the live workers, this one included, and `rank` is
-- the place of its id among theirs, from 0.
update procrastinate_workers as worker
set last_heartbeat = statement_timestamp(), alone = null,
    busy = %(busy)s::integer,
    trusted = %(trusted)s::integer::boolean,
    blocked_since = statement_timestamp()
        - %(blocked_us)s::bigint::float8 * interval '1 microsecond'
from (
    -- others: how many other workers are alive, and how many of them have lower ids; the server's
    -- time.
    select
        count(*) filter (where other.id < %(worker_id)s::bigint) as before,
        count(*) as number,
        statement_timestamp() as now
    from procrastinate_workers as other
    where other.partition = 0 and other.id <> %(worker_id)s::bigint
        and other.last_heartbeat
            >= statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
) as others
where worker.id = %(worker_id)s::bigint and worker.partition = 0
returning others.before as rank, others.number + 1 as live, others.now
