-- name: list_progress :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns (job, lease, millionths, message, data, time) of what these jobs have reported.
select
    progress.job_id, progress.lease,
    (progress.fraction::float8 * 1000000::float8)::integer as millionths,
    progress.message, progress.data::text as data,
    -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
    -- single row from before it, or without it, would keep all others from being read. (CASE, because
    -- `greatest` passes over a null.)
    case when progress.updated_at is not null then
        least(greatest(progress.updated_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end as updated_at
from procrastinate_progress as progress
where progress.partition = %(partition)s::smallint
    and progress.job_id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
