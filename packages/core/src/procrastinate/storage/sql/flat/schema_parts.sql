-- name: schema_parts :many
-- What our tables have: names of columns, of their defaults, and of those that are never null (with that of
-- their table), of indexes that are finished, of constraints that hold for all rows, and of tables that are
-- logged, or whose rows row level security does not hide from all other roles.
select 'column ' || class.relname::text || '.' || part.attname::text
from pg_catalog.pg_class as class
join pg_catalog.pg_attribute as part on part.attrelid = class.oid and not part.attisdropped
where class.oid = any(array(
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select 'default of ' || class.relname::text || '.' || part.attname::text
from pg_catalog.pg_class as class
join pg_catalog.pg_attribute as part
    on part.attrelid = class.oid and not part.attisdropped and part.atthasdef
where class.oid = any(array(
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select 'not null of ' || class.relname::text || '.' || part.attname::text
from pg_catalog.pg_class as class
join pg_catalog.pg_attribute as part
    on part.attrelid = class.oid and not part.attisdropped and part.attnotnull
where class.oid = any(array(
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select trait.name || class.relname::text
from pg_catalog.pg_class as class
cross join lateral (
    values
        ('logging of ', class.relpersistence <> 'u'),
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
select case when made.indisunique then 'unique index ' else 'index ' end || part.relname::text
from pg_catalog.pg_index as made
join pg_catalog.pg_class as part on part.oid = made.indexrelid
where made.indisvalid and made.indrelid = any(array(
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
union all
select 'constraint ' || part.conname::text
from pg_catalog.pg_constraint as part
where part.convalidated and part.conrelid = any(array(
    select to_regclass('' || name)::oid from pg_catalog.unnest(%(names)s::text[]) as name
))
