-- name: broken_indexes :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Indexes that were left unfinished: (quoted schema and name).
select quote_ident(schema.nspname::text) || '.' || quote_ident(broken.relname::text)
from pg_catalog.pg_index as made
join pg_catalog.pg_class as broken on broken.oid = made.indexrelid
join pg_catalog.pg_namespace as schema on schema.oid = broken.relnamespace
where made.indrelid = to_regclass('procrastinate_jobs')::oid and not made.indisvalid
    and starts_with(broken.relname::text, %(prefix)s::text)
order by 1
