-- name: migrations_table :one
-- Whether the table of migrations exists, as the search path or the schema says.
select to_regclass('procrastinate_migrations') is not null
