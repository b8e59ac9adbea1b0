-- name: known_names :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns the names of the tasks that live workers know, and null if one does not say what it
-- knows.
select distinct known.name
from procrastinate_workers as worker
cross join lateral pg_catalog.unnest(
    coalesce(worker.task_names, array[null]::text[])
) as known(name)
where worker.partition = 0
    and worker.last_heartbeat
        >= statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
