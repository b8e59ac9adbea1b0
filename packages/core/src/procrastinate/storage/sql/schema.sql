-- The state of the schema.

-- name: lock_migrations :exec
-- Lets one process at a time look at and change the schema; held until the transaction ends.
select pg_advisory_xact_lock(7238463501)

-- name: migrations_table :one
-- Whether the table of migrations exists, as the search path or the schema says.
select to_regclass('{schema}.procrastinate_migrations') is not null

-- name: list_migrations :many
select version, compatible_from
from {schema}.procrastinate_migrations
order by version

-- name: record_migration :exec
insert into {schema}.procrastinate_migrations (version, name, compatible_from)
values (%(version)s::integer, %(name)s::text, %(compatible_from)s::integer)

-- name: schema_exists :one
-- Whether the schema is there: creating it, even `if not exists`, needs a right on the database.
select to_regnamespace('{schema_name}') is not null

-- name: create_schema :exec
create schema if not exists {schema_name}

-- name: ping :one
select 1
