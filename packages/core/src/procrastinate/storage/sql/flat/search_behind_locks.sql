-- name: search_behind_locks :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- The same as search_newest, among the jobs behind locks, line by line, in the order in which they come out.
--
-- walk: the next jobs, in their order, numbered. It is read only as far as the rest asks for it.
with walk as materialized (
    select found.*, row_number() over () as n
    from (
        (
            -- What a walk says of a job: where it is, and whether the filters let it pass.
            --
            -- The same, with the statuses.
            select job.id, job.queue_name, job.priority, job.lock, null::timestamptz as moment, ((%(statuses)s::text[] is null
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
            where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.lock = %(after_lock)s::text and job.queue_name = %(after_queue)s::text
                    and job.priority = %(after_priority)s::integer and job.id > %(after_id)s::bigint
            order by job.lock, job.queue_name, job.priority desc, job.id
            limit %(scanned)s::integer
        )
        union all (
            select job.id, job.queue_name, job.priority, job.lock, null::timestamptz as moment, ((%(statuses)s::text[] is null
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
                    )) as matching
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.lock = %(after_lock)s::text and job.queue_name = %(after_queue)s::text
                    and job.priority < %(after_priority)s::integer
            order by job.lock, job.queue_name, job.priority desc, job.id
            limit %(scanned)s::integer
        )
        union all (
            select job.id, job.queue_name, job.priority, job.lock, null::timestamptz as moment, ((%(statuses)s::text[] is null
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
                    )) as matching
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.lock = %(after_lock)s::text and job.queue_name > %(after_queue)s::text
            order by job.lock, job.queue_name, job.priority desc, job.id
            limit %(scanned)s::integer
        )
        union all (
            select job.id, job.queue_name, job.priority, job.lock, null::timestamptz as moment, ((%(statuses)s::text[] is null
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
                    )) as matching
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and %(lock)s::text is null and job.lock > %(after_lock)s::text
            order by job.lock, job.queue_name, job.priority desc, job.id
            limit %(scanned)s::integer
        )
        limit %(scanned)s::integer
    ) as found
),
-- page: those of them that match, up to the limit.
page as materialized (
    select walk.id, walk.n from walk where walk.matching limit %(limit)s::integer
),
-- reached: how many were looked at: as far as the page goes if it is full, else all.
reached as materialized (
    select case
        when (select count(*) from page) = %(limit)s::integer then (select max(page.n) from page)
        else (select count(*) from walk)
    end as n
)
select
    reached.n::bigint as looked_at,
    (reached.n < %(scanned)s::integer
        and not exists (select from walk where walk.n > reached.n))::integer as at_end,
    -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
    -- single row from before it, or without it, would keep all others from being read. (CASE, because
    -- `greatest` passes over a null.)
    last.queue_name, last.priority, last.lock, case when last.moment is not null then
        least(greatest(last.moment, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end, last.id,
    (select count(*) from page), found.*
from reached
left join lateral (select walk.* from walk where walk.n = reached.n limit 1) as last on true
left join (
    select page.* from page order by page.n limit %(shown)s::integer
) as page on true
left join lateral (
    -- All that is shown of a job.
    --
    -- What the worker lacks of a job that it has just got. The claim's time is the same for all jobs,
    -- so it stands in the first row.
    select job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
        job.queueing_lock, job.attempts,
        case when job.deferred_at is not null then
            least(greatest(job.deferred_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
        end as deferred_at,
        case when job.scheduled_at is not null then
            least(greatest(job.scheduled_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
        end as scheduled_at,
        job.lease, nullif(job.crashes, 0) as crashes, job.meta::text as meta, job.errors::text as errors, job.status::text as status,
        case when job.started_at is not null then
            least(greatest(job.started_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
        end as started_at,
        case when job.finished_at is not null then
            least(greatest(job.finished_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
        end as finished_at, job.worker_id,
        job.result::text as result, job.result_error, job.hold::text as hold,
        case when coalesce(job.first_started_at, job.started_at) is not null then
            least(greatest(coalesce(job.first_started_at, job.started_at), '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
        end as first_started_at
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = page.id
    limit 1
) as found on true
order by page.n
