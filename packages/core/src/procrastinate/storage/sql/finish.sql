-- Ending attempts. Every statement is fenced: it changes a job only while this worker holds it,
-- by this lease. It returns the ids that it changed; a job that is missing was lost to a
-- recovery, and what it did is not written.
--
-- Jobs are looked up by id. `status::text` keeps the planner from the index of running jobs instead,
-- where every job that its worker has ended leaves a dead entry: with an old snapshot open elsewhere,
-- the ending of 20 jobs took 6.6 ms at first and 15 ms after 16,000 others (by id: 6 to 7 ms).

-- fragment: patience
-- For the rest of the transaction, in milliseconds. What a user's open transaction holds (a twin
-- with the same queueing lock, a job about to be cancelled) is not waited for: others' endings
-- would wait too. And a worker that freezes in the middle does not keep locks from all the others.
(
    select
        set_config('lock_timeout', '500', true),
        set_config('idle_in_transaction_session_timeout', '10000', true)
) as patience

-- fragment: why_aborted
-- For the errors of a job that would go back to the queue, had nobody asked for its abortion.
jsonb_build_object(
    'attempt', job.attempts,
    'at', to_char(statement_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
    'type', 'procrastinate.errors.JobAborted',
    'message', 'an abortion was asked for, so the job does not go back to the queue',
    'traceback', ''
)

-- fragment: by_id
-- A list of unknown length, which the planner takes to be short: for one that it can count it read small
-- tables from end to end.
job.id = any(array(select unnest(%(ids)s::bigint[])))

-- fragment: is_held
-- Whether this worker holds the job. Said as a CASE, which the planner takes to be true of every other
-- row: from the columns' statistics it expected a single row, and joined 500 jobs with their 500 endings
-- by looking at all 250,000 pairs.
case when job.status = 'doing' and job.worker_id = %(worker_id)s::bigint then true else false end

-- name: finish_jobs :many
-- Writes the final status of jobs. The two ages say, in microseconds, how long before this
-- statement the attempt began and ended: the worker's clock is never compared with the server's.
with patient as materialized (select from {>patience})
update {schema}.procrastinate_jobs as job
set status = ended.status::{schema}.procrastinate_job_status,
    started_at = statement_timestamp() - ended.began_us * interval '1 microsecond',
    finished_at = statement_timestamp() - ended.ended_us * interval '1 microsecond',
    errors = case when ended.error is null then job.errors
        else coalesce(job.errors, '[]') || ended.error::jsonb end
from unnest(
    %(ids)s::bigint[], %(leases)s::bigint[], %(statuses)s::text[],
    %(began_us)s::bigint[], %(ended_us)s::bigint[], %(errors)s::text[]
) as ended(id, lease, status, began_us, ended_us, error)
cross join patient
where job.partition = 0 and job.id = ended.id and {>by_id}
    and {>is_held} and job.lease = ended.lease
returning job.id

-- name: delete_finished :many
-- Removes jobs that ended, for workers that keep no history.
with patient as materialized (select from {>patience})
delete from {schema}.procrastinate_jobs as job
using unnest(%(ids)s::bigint[], %(leases)s::bigint[]) as ended(id, lease)
cross join patient
where job.partition = 0 and job.id = ended.id and {>by_id}
    and {>is_held} and job.lease = ended.lease
returning job.id

-- name: delete_ended :exec
-- Removes jobs that a statement before this one, in the same transaction, has ended although they
-- were to go back to the queue: for workers that keep nothing. (A statement of its own, as such jobs
-- are few: nothing is paid for them where there are none.)
delete from {schema}.procrastinate_jobs as job
where job.partition = 0 and {>by_id} and job.status::text not in ('todo', 'doing')

-- name: retry_job :many
-- Sends one job back for another attempt. Where somebody has asked for its abortion meanwhile, it
-- ends as aborted instead. Where a job with the same queueing lock is waiting, that one will do the
-- work, and this one ends as cancelled. A null change leaves the value.
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
    from {>patience}
),
retried as (
    update {schema}.procrastinate_jobs as job
    set status = case
            when job.abort_requested then 'aborted'
            when plan.superseded then 'cancelled'
            else 'todo'
        end::{schema}.procrastinate_job_status,
        hold = case
            when job.abort_requested or plan.superseded then null
            when plan.due > statement_timestamp() then 'schedule'::{schema}.procrastinate_hold
        end,
        scheduled_at = plan.due,
        worker_id = case when job.abort_requested or plan.superseded then job.worker_id end,
        started_at = statement_timestamp() - %(began_us)s::bigint * interval '1 microsecond',
        finished_at = statement_timestamp() - %(ended_us)s::bigint * interval '1 microsecond',
        priority = coalesce(%(priority)s::integer, job.priority),
        queue_name = coalesce(%(queue_name)s::text, job.queue_name),
        lock = coalesce(%(lock)s::text, job.lock),
        errors = nullif(
            coalesce(job.errors, '[]')
                || coalesce(%(error)s::jsonb, '[]')
                || case when job.abort_requested then {>why_aborted} else '[]' end,
            '[]'
        )
    from plan
    where job.partition = 0 and job.id = %(id)s::bigint
        and job.status::text = 'doing' and job.worker_id = %(worker_id)s::bigint
        and job.lease = %(lease)s::bigint
    returning job.id, job.status, job.hold, job.queue_name, job.scheduled_at
)
select
    retried.id,
    retried.status::text,
    case
        when retried.status <> 'todo' then null
        when retried.hold is null then pg_notify('procrastinate_jobs', retried.queue_name)::text
        when retried.scheduled_at < statement_timestamp() + interval '60 seconds'
            then pg_notify('procrastinate_schedule', retried.queue_name)::text
    end
from retried

-- name: hand_back :many
-- Returns claimed jobs to the queue. `begun` says for each whether its attempt had begun; one that
-- had not is given back untouched. One whose abortion somebody has asked for ends as aborted. Where
-- a job with the same queueing lock is waiting, or comes before it in this batch, that one will do
-- the work, and this one ends as cancelled.
with patient as materialized (select from {>patience}),
held as materialized (
    select job.id, job.queueing_lock, job.abort_requested, unstarted.begun
    from unnest(%(ids)s::bigint[], %(leases)s::bigint[], %(begun)s::integer[]::boolean[])
        as unstarted(id, lease, begun)
    cross join patient
    join {schema}.procrastinate_jobs as job on job.id = unstarted.id
    where job.partition = 0 and {>by_id}
        and {>is_held} and job.lease = unstarted.lease
    for update of job
),
verdict as materialized (
    select
        held.id,
        held.begun,
        case
            when held.abort_requested then 'aborted'
            when held.queueing_lock is not null and (
                exists (
                    select from {schema}.procrastinate_jobs as twin
                    where twin.queueing_lock = held.queueing_lock and twin.partition = 0
                        and twin.status = 'todo'
                )
                or exists (
                    select from held as sibling
                    where sibling.queueing_lock = held.queueing_lock and sibling.id < held.id
                        and not sibling.abort_requested
                )
            ) then 'cancelled'
            else 'todo'
        end as status
    from held
),
handed_back as (
    update {schema}.procrastinate_jobs as job
    set status = verdict.status::{schema}.procrastinate_job_status,
        worker_id = case when verdict.status = 'aborted' then job.worker_id end,
        started_at = case when verdict.begun then job.started_at end,
        finished_at = case when verdict.status <> 'todo' then statement_timestamp() end,
        attempts = job.attempts - case when verdict.begun then 0 else 1 end,
        errors = case when verdict.status = 'aborted'
            then coalesce(job.errors, '[]') || {>why_aborted} else job.errors end
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
select handed_back.id, handed_back.status::text
from handed_back, (select count(*) from woken) as woken

-- name: grip_locks :many
-- Keeps claims from parking jobs behind the locks of jobs that run no longer. Returns the locks.
-- Must be followed, in the same transaction, by release_locks: a statement of its own, so that
-- it sees the jobs that a claim parked while this one waited for it.
select held.lock
from {schema}.procrastinate_locks as held
where held.partition = 0 and held.job_id = any(%(ids)s::bigint[])
order by held.lock
for update

-- fragment: or_wait
-- For jobs that somebody is changing by hand: whatever becomes of them, the line goes on.

-- fragment: or_skip
skip locked

-- fragment: pass_on
line(lock, queue_name) as (
    select
        released.lock,
        (
            select job.queue_name
            from {schema}.procrastinate_jobs as job
            where job.lock = released.lock and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
            order by job.queue_name
            limit 1
        )
    from unnest(%(locks)s::text[]) as released(lock)
    union all
    select
        line.lock,
        (
            select job.queue_name
            from {schema}.procrastinate_jobs as job
            where job.lock = line.lock and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.queue_name > line.queue_name
            order by job.queue_name
            limit 1
        )
    from line
    where line.queue_name is not null
),
next as materialized (
    -- In the order in which all others lock waiting jobs, too.
    select best.id
    from (
        select line.lock, line.queue_name
        from line
        where line.queue_name is not null
        order by line.lock, line.queue_name
    ) as parking
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.lock = parking.lock and job.queue_name = parking.queue_name
            and job.status = 'todo'
            and job.hold is distinct from 'schedule' and job.hold = 'lock'
        order by job.priority desc, job.id
        limit 1
        for update {>busy}
    ) as best
),
passed as (
    update {schema}.procrastinate_jobs as job
    set hold = null
    where job.partition = 0 and job.id = any(array(select next.id from next))
    returning job.queue_name
)

-- name: release_locks :many
-- Takes the best parked job of each queue out of each lock's line, wakes the queue's workers, and
-- gives up the locks: last (hence the count), since claims wait for that.
with recursive {>pass_on busy=or_wait},
given_up as (
    delete from {schema}.procrastinate_locks as held
    where held.partition = 0 and held.lock = any(%(locks)s::text[])
        and (select count(*) from passed) >= 0
)
select passed.queue_name, pg_notify('procrastinate_jobs', passed.queue_name)::text
from passed
group by passed.queue_name

-- name: pass_on_locks :many
-- The same for locks that may be free already, after a change by hand. It passes over jobs that
-- somebody else has in hand, because those who change jobs by hand hold some and may not wait for
-- others: whoever has them passes on in turn. Only where that one rolls back, or a claim
-- far behind the times is looking at them, is a line left for mend_lines.
with recursive {>pass_on busy=or_skip}
select passed.queue_name, pg_notify('procrastinate_jobs', passed.queue_name)::text
from passed
group by passed.queue_name
