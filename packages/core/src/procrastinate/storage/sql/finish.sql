-- Ending attempts. Every statement is fenced: it changes a job only while this worker holds it,
-- at this attempt. It returns the ids that it changed; a job that is missing was lost to a
-- recovery, and what it did is not written.

-- name: finish_jobs :many
-- Writes the final status of jobs. The two ages say, in microseconds, how long before this
-- statement the attempt began and ended: the worker's clock is never compared with the server's.
update {schema}.procrastinate_jobs as job
set status = ended.status::{schema}.procrastinate_job_status,
    started_at = statement_timestamp() - ended.began_us * interval '1 microsecond',
    finished_at = statement_timestamp() - ended.ended_us * interval '1 microsecond',
    errors = case when ended.error is null then job.errors
        else coalesce(job.errors, '[]') || ended.error::jsonb end
from unnest(
    %(ids)s::bigint[], %(attempts)s::integer[], %(statuses)s::text[],
    %(began_us)s::bigint[], %(ended_us)s::bigint[], %(errors)s::text[]
) as ended(id, attempt, status, began_us, ended_us, error)
where job.partition = 0 and job.id = ended.id
    and job.status = 'doing' and job.worker_id = %(worker_id)s::bigint
    and job.attempts = ended.attempt
returning job.id

-- name: delete_finished :many
-- Removes jobs that ended, for workers that keep no history.
delete from {schema}.procrastinate_jobs as job
using unnest(%(ids)s::bigint[], %(attempts)s::integer[]) as ended(id, attempt)
where job.partition = 0 and job.id = ended.id
    and job.status = 'doing' and job.worker_id = %(worker_id)s::bigint
    and job.attempts = ended.attempt
returning job.id

-- name: retry_job :many
-- Sends one job back for another attempt. Where a job with the same queueing lock is waiting,
-- that one will do the work, and this one ends as cancelled. A null change leaves the value.
with plan as materialized (
    select
        coalesce(
            %(retry_at)s::timestamptz,
            statement_timestamp() + %(retry_in_us)s::bigint * interval '1 microsecond'
        ) as due,
        exists (
            select from {schema}.procrastinate_jobs as job
            join {schema}.procrastinate_jobs as twin
                on twin.queueing_lock = job.queueing_lock and twin.partition = 0
                and twin.status = 'todo'
            where job.id = %(id)s::bigint and job.partition = 0
        ) as superseded
),
retried as (
    update {schema}.procrastinate_jobs as job
    set status = case when plan.superseded then 'cancelled' else 'todo' end
            ::{schema}.procrastinate_job_status,
        hold = case when not plan.superseded and plan.due > statement_timestamp()
            then 'schedule'::{schema}.procrastinate_hold end,
        scheduled_at = plan.due,
        worker_id = case when plan.superseded then job.worker_id end,
        started_at = statement_timestamp() - %(began_us)s::bigint * interval '1 microsecond',
        finished_at = statement_timestamp() - %(ended_us)s::bigint * interval '1 microsecond',
        priority = coalesce(%(priority)s::integer, job.priority),
        queue_name = coalesce(%(queue_name)s::text, job.queue_name),
        lock = coalesce(%(lock)s::text, job.lock),
        errors = case when %(error)s::text is null then job.errors
            else coalesce(job.errors, '[]') || %(error)s::jsonb end
    from plan
    where job.partition = 0 and job.id = %(id)s::bigint
        and job.status = 'doing' and job.worker_id = %(worker_id)s::bigint
        and job.attempts = %(attempt)s::integer
    returning job.id, job.status, job.hold, job.queue_name, job.scheduled_at
)
select
    retried.id,
    case
        when retried.status <> 'todo' then null
        when retried.hold is null then pg_notify('procrastinate_jobs', retried.queue_name)::text
        when retried.scheduled_at < statement_timestamp() + interval '60 seconds'
            then pg_notify('procrastinate_schedule', retried.queue_name)::text
    end
from retried

-- name: hand_back :many
-- Returns claimed jobs to the queue. `begun` says for each whether its attempt had begun; one that
-- had not is given back untouched. Where a job with the same queueing lock is waiting, or comes
-- before it in this batch, that one will do the work, and this one ends as cancelled.
with held as materialized (
    select job.id, job.queueing_lock, unstarted.begun
    from unnest(%(ids)s::bigint[], %(attempts)s::integer[], %(begun)s::integer[]::boolean[])
        as unstarted(id, attempt, begun)
    join {schema}.procrastinate_jobs as job on job.id = unstarted.id
    where job.partition = 0 and job.id = any(%(ids)s::bigint[])
        and job.status = 'doing' and job.worker_id = %(worker_id)s::bigint
        and job.attempts = unstarted.attempt
    for update of job
),
verdict as materialized (
    select
        held.id,
        held.begun,
        held.queueing_lock is not null and (
            exists (
                select from {schema}.procrastinate_jobs as twin
                where twin.queueing_lock = held.queueing_lock and twin.partition = 0
                    and twin.status = 'todo'
            )
            or exists (
                select from held as sibling
                where sibling.queueing_lock = held.queueing_lock and sibling.id < held.id
            )
        ) as superseded
    from held
),
handed_back as (
    update {schema}.procrastinate_jobs as job
    set status = case when verdict.superseded then 'cancelled' else 'todo' end
            ::{schema}.procrastinate_job_status,
        worker_id = null,
        started_at = case when verdict.begun then job.started_at end,
        finished_at = case when verdict.superseded then statement_timestamp() end,
        attempts = job.attempts - case when verdict.begun then 0 else 1 end
    from verdict
    where job.partition = 0 and job.id = verdict.id
    returning job.id, job.status, job.queue_name
),
woken as materialized (
    select pg_notify('procrastinate_jobs', handed_back.queue_name)
    from handed_back
    where handed_back.status = 'todo'
    group by handed_back.queue_name
)
select handed_back.id from handed_back, (select count(*) from woken) as woken

-- name: release_locks :many
-- Gives up the locks of jobs that are no longer running. Returns the locks. Must be followed, in
-- the same transaction, by pass_on_locks: a statement of its own, so that it sees the jobs that
-- a claim parked while this one waited for it.
with given_up as materialized (
    -- In order of the lock, as claims take them: two transactions never wait for each other.
    select held.lock
    from {schema}.procrastinate_locks as held
    where held.partition = 0 and held.job_id = any(%(ids)s::bigint[])
    order by held.lock
    for update
)
delete from {schema}.procrastinate_locks as held
where held.partition = 0 and held.lock = any(array(select given_up.lock from given_up))
returning held.lock

-- name: pass_on_locks :many
-- Takes the best parked job of each queue out of each lock's line and wakes the queue's workers.
with recursive line(lock, queue_name) as (
    select
        released.lock,
        (
            select min(job.queue_name)
            from {schema}.procrastinate_jobs as job
            where job.lock = released.lock and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
        )
    from unnest(%(locks)s::text[]) as released(lock)
    union all
    select
        line.lock,
        (
            select min(job.queue_name)
            from {schema}.procrastinate_jobs as job
            where job.lock = line.lock and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.queue_name > line.queue_name
        )
    from line
    where line.queue_name is not null
),
passed as (
    update {schema}.procrastinate_jobs as job
    set hold = null
    where job.partition = 0 and job.id = any(array(
        select best.id
        from line
        cross join lateral (
            select job.id
            from {schema}.procrastinate_jobs as job
            where job.lock = line.lock and job.queue_name = line.queue_name
                and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
            order by job.priority desc, job.id
            limit 1
        ) as best
        where line.queue_name is not null
    ))
    returning job.queue_name
)
select passed.queue_name, pg_notify('procrastinate_jobs', passed.queue_name)::text
from passed
group by passed.queue_name
