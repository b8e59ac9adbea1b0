-- name: record_migration :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
insert into procrastinate_migrations (version, name, compatible_from)
values (%(version)s::integer, %(name)s::text, %(compatible_from)s::integer)
on conflict (version) do nothing
