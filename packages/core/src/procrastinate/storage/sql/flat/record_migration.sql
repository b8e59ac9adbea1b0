-- name: record_migration :exec
insert into procrastinate_migrations (version, name, compatible_from)
values (%(version)s::integer, %(name)s::text, %(compatible_from)s::integer)
on conflict (version) do nothing
