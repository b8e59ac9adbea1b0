-- name: retry_jobs_by_hand :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Makes ended or waiting jobs due at a time (null: at once), with as many attempts as new ones, and
-- wakes the workers. Returns (id, lock it had before, empty text or null).
with before as materialized (
    -- Those of the jobs that wait or did not succeed, locked in the order of their lines.
    select job.id, job.lock, job.queueing_lock, job.priority, job.status
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[])
        and job.status in ('todo', 'failed', 'cancelled', 'aborted')
    order by job.lock, job.queue_name, job.priority desc, job.id
    for update
),
-- due: when they are due. At once is noted as this moment, since when they wait: else those that
-- failed yesterday would seem to wait since they were deferred.
due as materialized (
    select
        coalesce(%(retry_at)s::timestamptz, statement_timestamp()) as scheduled_at,
        case when %(retry_at)s::timestamptz > statement_timestamp()
            then 'schedule'::procrastinate_hold end as hold
),
-- retried: the jobs as they are now, with the locks that they had before.
retried as (
    update procrastinate_jobs as job
    set status = 'todo',
        abort_requested = false,
        crashes = 0,
        bounces = null,
        unknown_since = null,
        worker_id = null,
        started_at = null,
        first_started_at = null,
        finished_at = null,
        result = null,
        result_error = null,
        attempts = case when job.status = 'todo' then job.attempts else 0 end,
        scheduled_at = due.scheduled_at,
        hold = due.hold,
        priority = coalesce(%(priority)s::integer, job.priority),
        queue_name = coalesce(%(queue_name)s::text, job.queue_name),
        lock = coalesce(%(lock)s::text, job.lock)
    from before
    cross join due
    where job.partition = %(partition)s::smallint and job.id = before.id
    returning job.id, before.lock, job.queue_name, job.hold, job.scheduled_at
)
select
    retried.id,
    retried.lock,
    null::text,
    case
        when retried.hold is null then 'procrastinate_jobs'
        when retried.scheduled_at < statement_timestamp() + interval '60 seconds'
            then 'procrastinate_schedule'
    end as channel,
    -- What a notification of a distributed database says: the queue of a job, and its partition.
    retried.queue_name || '@'::text || %(partition)s::smallint::text as payload
from retried
