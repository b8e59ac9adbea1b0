-- name: schema_parts :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
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
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
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
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select 'not null of ' || class.relname::text || '.' || part.attname::text, ''
from pg_catalog.pg_class as class
join pg_catalog.pg_attribute as part
    on part.attrelid = class.oid and not part.attisdropped and part.attnotnull
where class.oid = any(array(
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
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
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select
    case when made.indisunique then 'unique index ' else 'index ' end || part.relname::text,
    pg_catalog.pg_get_indexdef(made.indexrelid)
from pg_catalog.pg_index as made
join pg_catalog.pg_class as part on part.oid = made.indexrelid
where made.indisvalid and made.indrelid = any(array(
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select 'constraint ' || part.conname::text, pg_catalog.pg_get_constraintdef(part.oid)
from pg_catalog.pg_constraint as part
where part.convalidated and part.conrelid = any(array(
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select 'right to check jobs', ''
from pg_catalog.pg_class as jobs
where jobs.oid = to_regclass('procrastinate_jobs')::oid
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
