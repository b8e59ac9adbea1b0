-- name: list_newest_jobs :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns a page of jobs between two ids, from the newest on.
--
-- page: the ids of a page of each kind of job, one branch for each index that holds jobs of one
-- status and few others. The planner drops the branches of statuses that are not wanted.
with page as materialized (
    -- The ids of one page of jobs, of those for which a condition about their status holds. A null
    -- filter matches everything.
    (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and %(statuses)s::text[] is null
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
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
            )
    order by job.id desc
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'todo' = any(%(statuses)s::text[]) and job.status = 'todo' and job.hold is null
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
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
    order by job.id desc
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'todo' = any(%(statuses)s::text[]) and job.status = 'todo' and job.hold = 'schedule'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
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
    order by job.id desc
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'todo' = any(%(statuses)s::text[]) and job.status = 'todo' and job.lock is not null
        and job.hold is distinct from 'schedule' and job.hold = 'lock'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
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
    order by job.id desc
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'doing' = any(%(statuses)s::text[]) and job.status = 'doing'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
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
    order by job.id desc
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'succeeded' = any(%(statuses)s::text[]) and job.status = 'succeeded'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
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
    order by job.id desc
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'failed' = any(%(statuses)s::text[])
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'failed'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
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
    order by job.id desc
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'cancelled' = any(%(statuses)s::text[])
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'cancelled'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
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
    order by job.id desc
    limit %(limit)s::integer)
    union all (select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and 'aborted' = any(%(statuses)s::text[])
        and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'aborted'
        and job.id > %(after_id)s::bigint
        and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
        and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
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
    order by job.id desc
    limit %(limit)s::integer)
)
-- All that is shown of a job.
--
-- What the worker lacks of a job that it has just got. The claim's time is the same for all jobs,
-- so it stands in the first row.
select job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
    job.queueing_lock, job.attempts,
    -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
    -- single row from before it, or without it, would keep all others from being read. (CASE, because
    -- `greatest` passes over a null.)
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
where job.partition = %(partition)s::smallint and job.id = any(array(select page.id from page))
order by job.id desc
limit %(limit)s::integer
