-- The state of the schema.

-- name: try_lock_migrations :one
-- Lets one process at a time change the schema; held until the transaction ends. It does not wait: CREATE
-- INDEX CONCURRENTLY waits for all who wait in a statement, and they would wait for it. The process that has
-- the lock holds no snapshot for the same reason, and is idle meanwhile.
-- settings: idle
select pg_try_advisory_xact_lock(7238463502)

-- name: pause :exec
-- Waits here, because flows have no clock.
select pg_sleep(%(seconds)s::integer::float8)

-- name: schema_objects :many
-- Where each of our relations is found by the schema or the search_path: (name, schema or null, another schema
-- that it may have been moved to, or null). A schema that has what is found as well is another set of tables.
with wanted as (
    select asked.name, asked.place, to_regclass('{schema}.' || asked.name)::oid as oid
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

-- name: schema_looks :one
-- Whether the table of jobs is one of this design, and the schema version that the tables look like: what was
-- made by hand has no records. Releases up to 3.x had a table of the same name.
select
    exists (
        select from pg_catalog.pg_attribute as had
        where had.attrelid = jobs.oid and had.attname = 'partition' and not had.attisdropped
    )::integer,
    case
        when to_regclass('{schema}.procrastinate_waits') is not null
            then case when exists (
                select from pg_catalog.pg_constraint as had
                where had.conrelid = jobs.oid and had.convalidated
                    and had.conname = 'procrastinate_jobs_row_check'
            ) then 10 else 9 end
        when to_regclass('{schema}.procrastinate_settings') is not null then 8
        when exists (
            select from pg_catalog.pg_constraint as had
            where had.conrelid = jobs.oid and had.conname = 'procrastinate_jobs_errors_check'
        ) then case when not exists (
            select from pg_catalog.pg_constraint as had
            where had.conrelid = jobs.oid and not had.convalidated
        ) and to_regclass('{schema}.procrastinate_jobs_unknown_idx') is not null then 7 else 6 end
        when exists (
            select from pg_catalog.pg_attribute as had
            where had.attrelid = jobs.oid and had.attname = 'unknown_since'
        ) then 4
        when exists (
            select from pg_catalog.pg_attribute as had
            where had.attrelid = jobs.oid and had.attname = 'attempts_forgiven'
                and not had.attisdropped
        ) then 3
        when to_regclass('{schema}.procrastinate_periodic') is not null then 2
        else 1
    end
from (select to_regclass('{schema}.procrastinate_jobs')::oid as oid) as jobs

-- name: schema_parts :many
-- What our tables have: (name, definition). Names are those of columns, of their defaults, and of those that are
-- never null (with that of their table), of indexes that are finished, of constraints that hold for all rows, and
-- of tables that are plain and logged, that have no child tables, whose statements no rule replaces, and whose rows
-- row level security does not hide from all other roles. A definition is the server's text of a type, a default, an
-- index or a constraint. That of an enum has its values, and its schema if that is not the table's. The last part is
-- there unless this role writes jobs and may not call what checks them.
select
    'column ' || class.relname::text || '.' || part.attname::text,
    pg_catalog.concat(
        pg_catalog.format_type(part.atttypid, part.atttypmod),
        case when part.attgenerated <> '' then ' generated' end,
        enum.what
    )
from pg_catalog.pg_class as class
join pg_catalog.pg_attribute as part
    on part.attrelid = class.oid and part.attnum > 0 and not part.attisdropped
left join lateral (
    select pg_catalog.concat(
        ' of ',
        (
            select pg_catalog.string_agg(value.enumlabel::text, ', '::text order by value.enumsortorder)
            from pg_catalog.pg_enum as value
            where value.enumtypid = type.oid
        ),
        case when type.typnamespace <> class.relnamespace
            then ' in the schema ' || type.typnamespace::regnamespace::text end
    ) as what
    from pg_catalog.pg_type as type
    where type.oid = part.atttypid and type.typtype = 'e'
) as enum on true
where class.oid = any(array(
    select to_regclass('{schema}.' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select
    'default of ' || class.relname::text || '.' || part.attname::text,
    coalesce(pg_catalog.pg_get_expr(made.adbin, made.adrelid), 'identity')
from pg_catalog.pg_class as class
join pg_catalog.pg_attribute as part
    on part.attrelid = class.oid and not part.attisdropped
    and (part.atthasdef or part.attidentity <> '')
left join pg_catalog.pg_attrdef as made on made.adrelid = part.attrelid and made.adnum = part.attnum
where class.oid = any(array(
    select to_regclass('{schema}.' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select 'not null of ' || class.relname::text || '.' || part.attname::text, ''
from pg_catalog.pg_class as class
join pg_catalog.pg_attribute as part
    on part.attrelid = class.oid and not part.attisdropped and part.attnotnull
where class.oid = any(array(
    select to_regclass('{schema}.' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select trait.name || class.relname::text, ''
from pg_catalog.pg_class as class
cross join lateral (
    values
        ('plain table ', class.relkind = 'r'),
        ('logging of ', class.relpersistence <> 'u'),
        (
            'own rows of ',
            not exists (select from pg_catalog.pg_inherits as child where child.inhparent = class.oid)
        ),
        (
            'own statements of ',
            not exists (
                select from pg_catalog.pg_rewrite as rule
                where rule.ev_class = class.oid and rule.is_instead and rule.ev_enabled <> 'D'
                    and class.relkind <> 'v'
            )
        ),
        (
            'visible rows of ',
            not class.relrowsecurity
            or exists (select from pg_catalog.pg_policy as policy where policy.polrelid = class.oid)
        )
) as trait(name, is_there)
where trait.is_there and class.oid = any(array(
    select to_regclass('{schema}.' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select
    case when made.indisunique then 'unique index ' else 'index ' end || part.relname::text,
    pg_catalog.pg_get_indexdef(made.indexrelid)
from pg_catalog.pg_index as made
join pg_catalog.pg_class as part on part.oid = made.indexrelid
where made.indisvalid and made.indrelid = any(array(
    select to_regclass('{schema}.' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select 'constraint ' || part.conname::text, pg_catalog.pg_get_constraintdef(part.oid)
from pg_catalog.pg_constraint as part
where part.convalidated and part.conrelid = any(array(
    select to_regclass('{schema}.' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select 'right to check jobs', ''
from pg_catalog.pg_class as jobs
where jobs.oid = to_regclass('{schema}.procrastinate_jobs')::oid
    and not (
        pg_catalog.has_any_column_privilege(jobs.oid, 'INSERT, UPDATE')
        and exists (
            select from pg_catalog.pg_constraint as had
            join pg_catalog.pg_depend as call on call.classid = had.tableoid and call.objid = had.oid
            join pg_catalog.pg_proc as made
                on made.tableoid = call.refclassid and made.oid = call.refobjid
            where had.conrelid = jobs.oid and had.conname = 'procrastinate_jobs_row_check'
                and not pg_catalog.has_function_privilege(made.oid, 'EXECUTE')
        )
    )

-- name: schema_functions :many
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
where jobs.oid = to_regclass('{schema}.procrastinate_jobs')::oid

-- name: get_settings :one
-- settings: only, jit, isolation
-- Returns (partitions, boundary_id, 1 if the database is the coordinator or a node of a cluster, else 0).
select
    partitions, boundary_id,
    case when to_regclass('pg_catalog.pg_dist_node') is null then 0 else 1 end
from {schema}.procrastinate_settings

-- name: get_place :one
-- settings: only, jit, isolation
-- What tells the tables that a connection leads to from others: the table, the database, and the server's
-- start, as another server may have the same names and numbers. The first is 0 without the tables, and null on
-- a cluster, each node of which is another place. Needs no right on the tables, and never fails: the caller's
-- transaction goes on. (SEEN compares them, in the statements that defer.)
select
    case
        when to_regclass('pg_catalog.pg_dist_node') is null
            then coalesce(to_regclass('{schema}.procrastinate_jobs')::oid::bigint, 0)
    end,
    current_database()::text,
    pg_postmaster_start_time()

-- name: list_migrations :many
select version, compatible_from
from {schema}.procrastinate_migrations
order by version

-- name: record_migration :exec
insert into {schema}.procrastinate_migrations (version, name, compatible_from)
values (%(version)s::integer, %(name)s::text, %(compatible_from)s::integer)
on conflict (version) do nothing

-- name: creation_schema :one
-- Whether the schema is there, as creating it, even `if not exists`, needs a right on the database; and the
-- schema that the search_path creates tables in, if any of its schemas is there; and the search_path.
select
    (to_regnamespace(nullif('{schema_name}', '')) is not null)::integer, current_schema()::text,
    current_setting('search_path')

-- name: create_schema :exec
create schema if not exists {schema_name}

-- name: broken_indexes :many
-- Indexes that were left unfinished: (quoted schema and name).
select quote_ident(schema.nspname::text) || '.' || quote_ident(broken.relname::text)
from pg_catalog.pg_index as made
join pg_catalog.pg_class as broken on broken.oid = made.indexrelid
join pg_catalog.pg_namespace as schema on schema.oid = broken.relnamespace
where made.indrelid = to_regclass('{schema}.procrastinate_jobs')::oid and not made.indisvalid
    and starts_with(broken.relname::text, %(prefix)s::text)
order by 1

-- name: table_users :many
-- The sessions that have our tables in use: (pid, seconds since their transaction began), the oldest first.
select held.pid, extract(epoch from clock_timestamp() - min(session.xact_start))::float8
from pg_catalog.pg_locks as held
join pg_catalog.pg_stat_activity as session on session.pid = held.pid
where held.locktype = 'relation' and held.granted and held.pid <> pg_backend_pid()
    and held.relation = any(array(
        select to_regclass('{schema}.' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
    ))
group by held.pid
order by 2 desc nulls last
limit 5

-- name: ping :one
select 1
