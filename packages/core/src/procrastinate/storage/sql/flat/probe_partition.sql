-- name: probe_partition :one
-- Asks for something that costs nothing: the node that has the partition answers, or it is away.
select exists (
    select from procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.lock = ''
)::integer
