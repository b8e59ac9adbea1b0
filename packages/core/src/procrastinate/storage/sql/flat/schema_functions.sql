-- name: schema_functions :many
-- The functions in the schema of the tables that belong to the tables' owner: (name, quoted schema, text,
-- whether it is as it should be else, number of parameters). Whatever others have made of these names is none of ours.
select
    made.proname::text, '"' || replace(schema.nspname::text, '"', '""') || '"', made.prosrc,
    (
        made.prosecdef
        and coalesce(pg_catalog.array_to_string(made.proconfig, '; '), '')
            = case when made.proname::text = any(%(pinned)s::text[])
                then 'search_path=pg_catalog, pg_temp' else '' end
    )::integer,
    made.pronargs::integer
from pg_catalog.pg_class as jobs
join pg_catalog.pg_namespace as schema on schema.oid = jobs.relnamespace
join pg_catalog.pg_proc as made on made.pronamespace = schema.oid
    and made.proowner = jobs.relowner and made.proname::text = any(%(names)s::text[])
where jobs.oid = to_regclass('procrastinate_jobs')::oid
