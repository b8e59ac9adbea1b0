-- name: grip_ids_when_free :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- The same as grip_any, among jobs known by id, waiting for the transactions that have them in hand.
--
-- walk: the next jobs after an id, as many as are looked at in one statement.
with walk as materialized (
    -- The next of the jobs that are known by id, and whether each matches.
    --
    -- The same, with the statuses.
    select job.id, ((%(statuses)s::text[] is null
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
            )) as matching
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[]) and job.id > %(after_id)s::bigint
    order by job.id
    limit %(scanned)s::integer
),
-- matching: those of them that match, up to the limit.
matching as materialized (
    select walk.id from walk where walk.matching order by walk.id limit %(limit)s::integer
),
-- gripped: those of them that still match, locked in the order of their lines.
gripped as materialized (
    select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(array(select matching.id from matching))
        and (%(statuses)s::text[] is null
            or job.status = any(%(statuses)s::text[]::procrastinate_job_status[]))
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
                )
    order by job.lock, job.queue_name, job.priority desc, job.id
    for update
)
select reached.last_id, matching.id, (gripped.id is not null)::integer
from (
    select case
        when (select count(*) from matching) = %(limit)s::integer
            then (select max(matching.id) from matching)
        when (select count(*) from walk) = %(scanned)s::integer
            then (select max(walk.id) from walk)
    end as last_id
) as reached
left join matching on true
left join gripped on gripped.id = matching.id
order by matching.id
