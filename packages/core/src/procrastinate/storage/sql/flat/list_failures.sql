-- name: list_failures :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = off.
-- settings: in_order
-- Looks at the jobs that failed, from the newest on. Returns (how many were looked at, task, type
-- and beginning of the last error, how many, when the first and the last ended, the last id) for
-- each kind of failure, or one row of nulls. Errors that differ only in their digits are counted
-- together. The caller joins groups whose normalised texts are the same.
with walk as materialized (
    select
        -- The same, with the statuses.
        job.id, job.task_name, job.finished_at, ((%(statuses)s::text[] is null
            or job.status = any(%(statuses)s::text[]::procrastinate_job_status[]))
            -- True of a job that people's filters let pass, but for its id and its status. A null filter lets
            -- everything pass. `holds` are those that waiting jobs may have, '' for none; `since` and `through`
            -- are about when a job ended, or started if it runs, or was deferred if it waits; `error` is a pattern.
            and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
                and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
                and (%(lock)s::text is null or job.lock = %(lock)s::text)
                and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
                and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
                and (%(holds)s::text[] is null or job.status <> 'todo'
                    or coalesce(job.hold::text, '') = any(%(holds)s::text[]))
                and (
                    coalesce(%(since)s::timestamptz, %(through)s::timestamptz) is null
                    or case job.status
                        when 'todo' then job.deferred_at
                        when 'doing' then coalesce(job.started_at, job.deferred_at)
                        else coalesce(job.finished_at, job.deferred_at)
                    end between coalesce(%(since)s::timestamptz, '-infinity')
                        and coalesce(%(through)s::timestamptz, 'infinity')
                )
                and (
                    %(error)s::text is null
                    or lower(pg_catalog.concat_ws(': ',
                        job.errors -> -1 ->> 'type'::text, job.errors -> -1 ->> 'message'::text
                    )) like lower(%(error)s::text)
                )) as matching,
        coalesce(last.entry ->> 'type'::text, '') as type,
        left(coalesce(last.entry ->> 'message'::text, ''), 200) as message
    from procrastinate_jobs as job
    cross join lateral (select job.errors -> -1 as entry offset 0) as last
    where job.partition = %(partition)s::smallint
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'failed'
    order by job.id desc
    limit %(scanned)s::integer
),
alike as materialized (
    select
        walk.task_name, walk.type, min(walk.message) as message, count(*) as jobs,
        min(walk.finished_at) as first_at, max(walk.finished_at) as last_at, max(walk.id) as last_id
    from walk
    where walk.matching
    group by walk.task_name, walk.type, translate(walk.message, '0123456789', '0000000000')
)
select
    (select count(*) from walk), alike.task_name, alike.type, alike.message, alike.jobs,
    -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
    -- single row from before it, or without it, would keep all others from being read. (CASE, because
    -- `greatest` passes over a null.)
    case when alike.first_at is not null then
        least(greatest(alike.first_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end, case when alike.last_at is not null then
        least(greatest(alike.last_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end, alike.last_id
from (select 1) as one
left join alike on true
order by alike.last_id desc
