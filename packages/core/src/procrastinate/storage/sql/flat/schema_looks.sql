-- name: schema_looks :one
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Whether the table of jobs is one of this design, and the schema version that the tables look like: what was
-- made by hand has no records. Releases up to 3.x had a table of the same name.
select
    exists (
        select from pg_catalog.pg_attribute as had
        where had.attrelid = jobs.oid and had.attname = 'partition' and not had.attisdropped
    )::integer,
    case
        when to_regclass('procrastinate_waits') is not null
            then case when exists (
                select from pg_catalog.pg_constraint as had
                where had.conrelid = jobs.oid and had.convalidated
                    and had.conname = 'procrastinate_jobs_row_check'
            ) then 10 else 9 end
        when to_regclass('procrastinate_settings') is not null then 8
        when exists (
            select from pg_catalog.pg_constraint as had
            where had.conrelid = jobs.oid and had.conname = 'procrastinate_jobs_errors_check'
        ) then case when not exists (
            select from pg_catalog.pg_constraint as had
            where had.conrelid = jobs.oid and not had.convalidated
        ) and to_regclass('procrastinate_jobs_unknown_idx') is not null then 7 else 6 end
        when exists (
            select from pg_catalog.pg_attribute as had
            where had.attrelid = jobs.oid and had.attname = 'unknown_since'
        ) then 4
        when exists (
            select from pg_catalog.pg_attribute as had
            where had.attrelid = jobs.oid and had.attname = 'attempts_forgiven'
                and not had.attisdropped
        ) then 3
        when to_regclass('procrastinate_periodic') is not null then 2
        else 1
    end
from (select to_regclass('procrastinate_jobs')::oid as oid) as jobs
