-- name: creation_schema :one
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Whether the schema is there, as creating it, even `if not exists`, needs a right on the database; and the
-- schema that the search_path creates tables in, if any of its schemas is there; and the search_path.
select
    (to_regnamespace(nullif('{schema_name}', '')) is not null)::integer, current_schema()::text,
    current_setting('search_path')
