-- name: claim_unlocked_level_of_one :many
-- The same above a queue's low-water mark.
-- settings: asynchronous
-- From one queue, as it most often is: what is chosen is locked while it is read, which costs the least.
with candidate as materialized (
    select job.id, job.lock
    -- The ready jobs of one priority above a low-water mark. Dead index entries gather at the end
    -- that is read first; starting above them keeps a busy queue fast. What the mark hides (late
    -- commits, retries, other priorities) is found by the next full scan.
    from procrastinate_jobs as job
    where job.partition = 0 and job.queue_name = %(queue_name)s::text
        and job.status = 'todo' and job.hold is null
        and job.priority = %(priority)s::integer and job.id > %(low)s::bigint{known}
    order by job.priority desc, job.id
    limit %(limit)s::integer
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
    where job.partition = 0 and job.id = any(array(select candidate.id from candidate where candidate.lock is null))
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
from (select count(candidate.lock)::integer as aside, count(*)::integer as met from candidate) as met
order by priority desc, id
