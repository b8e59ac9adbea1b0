-- name: create_schema :exec
create schema if not exists {schema_name}
