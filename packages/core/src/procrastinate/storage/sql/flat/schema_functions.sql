-- name: schema_functions :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- The functions in the schema of the tables that belong to the tables' owner: (name, quoted schema, text,
-- traits, number of parameters). The traits are whose rights it has, how volatile it is, what it sets, and
-- whether it is strict. Whatever others have made of these names is none of ours.
select
    made.proname::text, '"' || replace(schema.nspname::text, '"', '""') || '"', made.prosrc,
    pg_catalog.concat_ws(
        ' ',
        case when made.prosecdef then 'definer' else 'invoker' end,
        made.provolatile::text,
        pg_catalog.array_to_string(made.proconfig, '; '),
        case when made.proisstrict then 'strict' end
    ),
    made.pronargs::integer
from pg_catalog.pg_class as jobs
join pg_catalog.pg_namespace as schema on schema.oid = jobs.relnamespace
join pg_catalog.pg_proc as made on made.pronamespace = schema.oid
    and made.proowner = jobs.relowner and made.proname::text = any(%(names)s::text[])
where jobs.oid = to_regclass('procrastinate_jobs')::oid
