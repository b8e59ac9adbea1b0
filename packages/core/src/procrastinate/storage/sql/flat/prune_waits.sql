-- name: prune_waits :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Removes these rows from a partition.
delete from procrastinate_waits as wait
where wait.partition = %(partition)s::smallint and wait.expires_at < statement_timestamp()
