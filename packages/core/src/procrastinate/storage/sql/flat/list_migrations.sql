-- name: list_migrations :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
select version, compatible_from
from procrastinate_migrations
order by version
