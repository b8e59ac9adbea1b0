-- name: claim_unlocked_level_of_one_wary :many
-- settings: asynchronous
-- The same if jobs with locks were met lately, which would be locked in vain: it looks first. (That takes
-- 80 microseconds, of 850 for 100 jobs.)
with met as materialized (
    select count(first.lock)::integer as aside, count(*)::integer as met
    from (
        select job.lock
        -- The ready jobs of one priority above a low-water mark. Dead index entries gather at the end
        -- that is read first; starting above them keeps a busy queue fast. What the mark hides (late
        -- commits, retries, other priorities) is found by the next full scan.
        from procrastinate_jobs as job
        where job.partition = 0 and job.queue_name = %(queue_name)s::text
            and job.status = 'todo' and job.hold is null
            and job.priority = %(priority)s::integer and job.id > %(low)s::bigint{known}
        order by job.priority desc, job.id
        limit %(limit)s::integer
    ) as first
),
candidate as materialized (
    select job.id
    from procrastinate_jobs as job
    where job.partition = 0 and job.queue_name = %(queue_name)s::text
        and job.status = 'todo' and job.hold is null
        and job.priority = %(priority)s::integer and job.id > %(low)s::bigint{known}
        and job.lock is null
    order by job.priority desc, job.id
    limit (select case when met.aside = 0 then %(limit)s::integer else 0 end from met)
    for update skip locked
),
claimed as (
    update procrastinate_jobs as job
    set status = 'doing',
        worker_id = %(worker_id)s::bigint,
        attempts = job.attempts + 1,
        lease = job.lease + 1,
        started_at = statement_timestamp(),
        finished_at = null
    where job.partition = 0 and job.id = any(array(select candidate.id from candidate))
    -- What the worker does not know of a job that it just got, but for the time: that is the same for all.
    returning job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
        job.queueing_lock, job.attempts, job.deferred_at, job.scheduled_at, job.lease,
        nullif(job.crashes, 0) as crashes
)
-- One row about the claim, and after it (for it has no priority) one for each job. What stands in each
-- row is read for each job: two counts, the crashes and the time took the worker 1.7 microseconds.
select
    claimed.*, null::integer as aside, null::integer as met, null::bigint as moment_us
from claimed
union all
select
    null, null, null, null, null, null, null, null, null, null, null, null,
    met.aside, met.met, (extract(epoch from statement_timestamp()) * 1000000)::bigint
from met
order by priority desc, id
