-- name: probe_partition :one
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Asks for something that costs nothing: the node that has the partition answers, or it is away.
select exists (
    select from procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.lock = ''
)::integer
