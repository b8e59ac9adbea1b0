-- name: schema_parts :many
-- What our tables have: names of columns and defaults (with that of their table), of indexes that are
-- finished, and of constraints that hold for all rows.
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
