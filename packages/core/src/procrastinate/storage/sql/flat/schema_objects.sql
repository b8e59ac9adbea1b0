-- name: schema_objects :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Where each of our relations is found by the schema or the search_path: (name, schema or null, another schema
-- that it may have been moved to, or null). A schema that has what is found as well is another set of tables.
with wanted as (
    select asked.name, asked.place, to_regclass('' || asked.name)::oid as oid
    from pg_catalog.unnest(%(names)s::text[]) with ordinality as asked(name, place)
)
select wanted.name, schema.nspname::text, moved.schema
from wanted
left join pg_catalog.pg_class as found on found.oid = wanted.oid
left join pg_catalog.pg_namespace as schema on schema.oid = found.relnamespace
cross join lateral (
    select min(other.nspname::text) as schema
    from pg_catalog.pg_class as there
    join pg_catalog.pg_namespace as other on other.oid = there.relnamespace
    where wanted.oid is null and there.relname = wanted.name::pg_catalog.name
        and there.relkind in ('r', 'S') and there.relpersistence <> 't'
        and not exists (
            select from wanted as home
            join pg_catalog.pg_class as twin
                on twin.relname = home.name::pg_catalog.name
                and twin.relnamespace = there.relnamespace
            where home.oid is not null
        )
) as moved
order by wanted.place
