-- name: schema_objects :many
-- Where each of our relations is found by the schema or the search_path: (name, schema or null).
select wanted.name, schema.nspname::text
from pg_catalog.unnest(%(names)s::text[]) with ordinality as wanted(name, place)
left join pg_catalog.pg_class as found on found.oid = to_regclass('' || wanted.name)::oid
left join pg_catalog.pg_namespace as schema on schema.oid = found.relnamespace
order by wanted.place
