-- name: sees_progress :one
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Whether this connection can read the table: not on a standby, nor without the right to. To try would
-- spoil the transaction of a caller.
select (
    coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('procrastinate_progress'), 'select'), false)
    and not pg_is_in_recovery()
)::integer
