-- name: claim_unlocked_full_of_many :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, synchronous_commit = off.
-- {known} stands for nothing, or for: and job.task_name <> all(%(unknown_names)s::text[])
-- settings: asynchronous
-- Takes jobs without a lock, in a full scan of many queues.
--
-- Returns one row (13 nulls, aside, met, moment_us), and then (job..., 3 nulls) for each claimed
-- job. `met` counts the ready jobs that it met, `aside` those of them that have a lock. Another
-- transaction has the others in hand that were not claimed. `moment_us` is the time of the claim,
-- in microseconds since the epoch. `crashes` is null for most jobs.
--
-- share: the first jobs of each queue, a fair part of what is wanted. (Reading a share at first,
-- and the rest of few queues, took 5 ms for 500 jobs of 100 queues instead of 18. `limit` is the
-- worker's room. `scanned` is more than that, because others may be claiming the first ones at this
-- moment.)
with share as materialized (
    select
        found.id, found.priority, found.queue_name, found.lock, scan.low,
        row_number() over (order by found.priority desc, found.id) as place
    from unnest(%(queue_names)s::text[], %(lows)s::bigint[]) as scan(queue_name, low)
    cross join lateral (
        select job.id, job.priority, job.queue_name, job.lock
        -- The ready jobs of a queue with a priority above `above`: that of the jobs which the worker is busy
        -- with, or, to scan all, a number below every integer.
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.queue_name = scan.queue_name
            and job.status = 'todo' and job.hold is null
            and job.priority > %(above)s::bigint{known}
        order by job.priority desc, job.id
        limit %(share)s::integer
    ) as found
),
-- crowded: the queues whose share ended before the last place, so that they may have more.
crowded as materialized (
    select share.queue_name, share.low
    from share
    group by share.queue_name, share.low
    having count(*) = %(share)s::integer and max(share.place) < %(scanned)s::integer
),
-- chosen: the first jobs of all queues together, in order.
chosen as materialized (
    select found.id, found.priority, found.queue_name, found.lock
    from (
        select share.id, share.priority, share.queue_name, share.lock
        from share
        where share.queue_name not in (select crowded.queue_name from crowded)
        union all
        select rest.id, rest.priority, rest.queue_name, rest.lock
        from crowded as scan
        cross join lateral (
            select job.id, job.priority, job.queue_name, job.lock
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.queue_name = scan.queue_name
                and job.status = 'todo' and job.hold is null
                and job.priority > %(above)s::bigint{known}
            order by job.priority desc, job.id
            limit %(scanned)s::integer
        ) as rest
    ) as found
    order by found.priority desc, found.id
    limit %(scanned)s::integer
),
-- met: how many were chosen, and how many of them have a lock.
met as materialized (
    select pg_catalog.count(chosen.lock)::integer as aside, count(*)::integer as met
    from chosen
),
-- candidate: the chosen jobs, locked in order. All or none: none if a job with a lock is among as
-- many as there is room for. (The hold is asked for in a way that no partial index answers: a plan
-- that looked for each id in the index of ready jobs read all of it each time.)
candidate as materialized (
    select got.id
    from chosen
    cross join lateral (
        select job.id
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.id = chosen.id
            and job.status = 'todo' and pg_catalog.num_nulls(job.hold) = 1
            and job.lock is null and job.queue_name = chosen.queue_name
        for update skip locked
    ) as got
    where chosen.lock is null
    limit (
        select case when pg_catalog.count(first.lock) = 0 then %(limit)s::integer else 0 end
        from (select chosen.lock from chosen limit %(limit)s::integer) as first
    )
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
    where job.partition = %(partition)s::smallint and job.id = any(array(select candidate.id from candidate))
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
from met
order by priority desc, id
