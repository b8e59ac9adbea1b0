-- name: schema_exists :one
-- Whether the schema is there: creating it, even `if not exists`, needs a right on the database.
select to_regnamespace('{schema_name}') is not null
