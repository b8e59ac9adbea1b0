-- name: claim_unlocked_level_of_one :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, synchronous_commit = off,
--     plan_cache_mode = force_generic_plan, enable_seqscan = off.
-- {known} stands for nothing, or for: and job.task_name <> all(%(unknown_names)s::text[])
-- settings: asynchronous, prepared
-- Takes jobs without a lock, of one level of one queue.
--
-- Returns one row (13 nulls, aside, met, moment_us), and then (job..., 3 nulls) for each claimed
-- job. `met` counts the ready jobs that it met, `aside` those of them that have a lock. Another
-- transaction has the others in hand that were not claimed. `moment_us` is the time of the claim,
-- in microseconds since the epoch. `crashes` is null for most jobs.
--
-- candidate: the first ready jobs of the queue, locked as they are read, which costs the least.
with candidate as materialized (
    select job.id, job.lock
    -- The ready jobs of one priority above a low-water mark. Dead index entries gather at the end that
    -- is read first, so a scan that starts above them keeps a busy queue fast. What the mark hides
    -- (late commits, retries, other priorities) is found by the next full scan.
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.queue_name = %(queue_name)s::text
        and job.status = 'todo' and job.hold is null
        and job.priority = %(priority)s::integer and job.id > %(low)s::bigint{known}
    order by job.priority desc, job.id
    limit %(limit)s::integer
    for update skip locked
),
-- claimed: the candidates, which the worker holds now.
claimed as (
    update procrastinate_jobs as job
    -- (The limits: a row that was changed by hand keeps no other from being claimed.)
    set status = 'doing',
        worker_id = %(worker_id)s::bigint,
        attempts = least(greatest(job.attempts, 0), 2147483646) + 1,
        lease = least(job.lease, 2147483646) + 1,
        started_at = statement_timestamp(),
        finished_at = null
    where job.partition = %(partition)s::smallint and job.id = any(array(select candidate.id from candidate where candidate.lock is null))
    -- What the worker lacks of a job that it has just got. The claim's time is the same for all jobs,
    -- so it stands in the first row.
    returning job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
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
        job.lease, nullif(job.crashes, 0) as crashes, job.meta::text as meta
)
-- One row about the claim, and then one for each job: nulls come first in a descending order.
-- What stands in every row is read for each job. (Two counts, the crashes and the time took the
-- worker 1.7 microseconds.)
select
    claimed.*, null::integer as aside, null::integer as met, null::bigint as moment_us
from claimed
union all
select
    null, null, null, null, null, null, null, null, null, null, null, null, null,
    met.aside, met.met, (extract(epoch from statement_timestamp()) * 1000000.0)::bigint
-- What is set in front of a statement stays with the coordinator, and it is a node that commits.
from (
    select pg_catalog.set_config('synchronous_commit', 'off', true)
) as setting
cross join (
    select pg_catalog.count(candidate.lock)::integer as aside, count(*)::integer as met
    from candidate
) as met
order by priority desc, id
