-- name: claim_full_of_many :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, synchronous_commit = off.
-- {known} stands for nothing, or for: and job.task_name <> all(%(unknown_names)s::text[])
-- {unpaused best} stands for nothing, or for:
--     and best.queue_name <> all(%(paused)s::text[])
--     and (best.queue_name = 'builtin' or '*' <> all(%(paused)s::text[]))
-- (A pause of all queues, '*', spares the queue builtin.)
-- settings: asynchronous
-- Takes jobs with and without a lock, in a full scan of many queues.
--
-- Returns one row (13 nulls, aside, met, moment_us), and then (job..., 3 nulls) for each claimed
-- job. `met` counts the ready jobs that it met, `aside` those of them that it parked. The others
-- that were not claimed stay as they are: another transaction was just deciding about them or their
-- line, or there was no room. `moment_us` is the time of the claim, in microseconds since the epoch.
--
-- The jobs of one lock are its line, in order of (priority desc, id). A row of procrastinate_locks is
-- the slot of a lock, and the job in it holds the lock. The first of the line, the head, may take a
-- free slot. Jobs that may not start are parked (hold = 'lock'): no claim reads them until a release
-- of the lock makes the next ones ready.
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
-- head: the first job of each free lock's line, of those locks that chosen jobs need. The line goes
-- through the served queues (null: through all). A lock with a row in this snapshot counts as held:
-- its job may be retried meanwhile, and this snapshot cannot show the retried job. (The planner
-- expects ten elements of an array. It expected 200 rows of a subquery, and so high a cost that it
-- compiled the statement.)
head as materialized (
    select first.id, first.priority, first.queue_name, contended.lock, first.is_ready
    from pg_catalog.unnest(array(
        select distinct chosen.lock from chosen where chosen.lock is not null
    )) as contended(lock)
    cross join lateral (
        -- The first job of a line, ready or parked. Jobs of paused queues do not hold up the others: they
        -- keep their places, and are passed on like all.
        with recursive ready as (
            -- The best job of the line in each queue, from queue to queue, by one index probe for each.
            -- (Ordered by the hold as well, because the planner does not see that it is the same everywhere. And
            -- `distinct from 'schedule'` is in the condition of the index: without it, the planner cannot use that.)
            (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                -- The condition with to_tsvector is true of every job with a lock. It is only there to make the planner
                -- take the index of lines: that index's own condition implies it, so with that index it costs nothing,
                -- and with any other, to_tsvector looks dear. (The planner expects a single row of each index that was
                -- never analyzed, and read all ready jobs for each lock. A claim of 500 jobs of 20,000 took 700 ms
                -- instead of 9.)
                where job.partition = %(partition)s::smallint and job.lock = contended.lock and (job.lock is not null
                    or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                    and job.status = 'todo'
                    and job.hold is distinct from 'schedule' and job.hold is null
                order by job.hold, job.queue_name, job.priority desc, job.id
                limit 1
            )
            union all
            select following.id, following.priority, following.queue_name
            from ready as before
            cross join lateral (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                where job.partition = %(partition)s::smallint and job.lock = contended.lock and (job.lock is not null
                    or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                    and job.queue_name > before.queue_name and job.status = 'todo'
                    and job.hold is distinct from 'schedule' and job.hold is null
                order by job.hold, job.queue_name, job.priority desc, job.id
                limit 1
            ) as following
        ),
        parking as (
            (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                where job.partition = %(partition)s::smallint and job.lock = contended.lock and (job.lock is not null
                    or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                    and job.status = 'todo'
                    and job.hold is distinct from 'schedule' and job.hold = 'lock'
                order by job.hold, job.queue_name, job.priority desc, job.id
                limit 1
            )
            union all
            select following.id, following.priority, following.queue_name
            from parking as before
            cross join lateral (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                where job.partition = %(partition)s::smallint and job.lock = contended.lock and (job.lock is not null
                    or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                    and job.queue_name > before.queue_name and job.status = 'todo'
                    and job.hold is distinct from 'schedule' and job.hold = 'lock'
                order by job.hold, job.queue_name, job.priority desc, job.id
                limit 1
            ) as following
        )
        select best.id, best.priority, best.queue_name, best.is_ready
        from (
            select ready.*, true as is_ready from ready
            union all
            select parking.*, false from parking
        ) as best
        where (%(served)s::text[] is null or best.queue_name = any(%(served)s::text[])){unpaused best}
        order by best.priority desc, best.id
        limit 1
    ) as first
    where not exists (
        select from procrastinate_locks as held
        where held.lock = contended.lock and held.partition = %(partition)s::smallint and held.job_id is not null
    )
),
-- elsewhere: the ready heads in the scanned queues that the scan did not come to.
elsewhere as materialized (
    select head.id, head.priority, head.lock
    from head
    where head.id in (
        -- (The next job of a released lock may stand where the scan does not look: of another priority, or with
        -- a smaller id than it begins at.)
        select head.id
        from head
        where head.is_ready and head.queue_name = any(%(queue_names)s::text[])
            and head.id not in (select chosen.id from chosen)
    )
),
-- wanted: what may start, up to the limit, locked in order. (What was scanned beyond the limit is
-- only there to be parked. For num_nulls: the index of ready jobs must not be used to look for
-- ids.)
wanted as materialized (
    select got.id, startable.lock
    from (
        -- Chosen jobs without a lock, chosen heads, and the heads elsewhere. (A head that does not get its
        -- lock stays ready, for the next claim that meets its line or scans it.)
        select chosen.id, chosen.priority, chosen.lock
        from chosen
        where chosen.lock is null or chosen.id in (select head.id from head)
        union all
        select elsewhere.id, elsewhere.priority, elsewhere.lock
        from elsewhere
        order by priority desc, id
    ) as startable
    cross join lateral (
        select job.id
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.id = startable.id
            and job.status = 'todo' and pg_catalog.num_nulls(job.hold) = 1{known}
            and job.lock is not distinct from startable.lock
            and job.queue_name = any(%(queue_names)s::text[])
        for update skip locked
    ) as got
    limit %(limit)s::integer
),
-- free: the slots of wanted jobs that no job holds, locked: another claim may have them in hand. (They
-- exist: `make_slots_...` is sent before this, because no insert inside a statement stays on one node.)
free as materialized (
    select held.lock
    from procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.job_id is null
        and held.lock = any(array(select wanted.lock from wanted where wanted.lock is not null))
    order by held.lock
    for update
),
-- acquired: the slots that wanted jobs took.
acquired as (
    update procrastinate_locks as held
    set job_id = wanted.id
    from wanted
    where held.partition = %(partition)s::smallint and held.lock = wanted.lock
        and held.lock in (select free.lock from free)
    returning held.lock, held.job_id
),
-- holder: the locks of chosen jobs that are held, and stay so until this claim commits: a release
-- waits for it, and then sees what it has parked. If a release came first, the lock is left out:
-- its jobs are not parked, but stay ready and undecided. (The count makes this come after `acquired`,
-- which may have waited for another claim.)
holder as materialized (
    select held.lock
    from procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.job_id is not null
        and held.lock = any(array(select chosen.lock from chosen where lock is not null))
        and (select count(*) from acquired) >= 0
    order by held.lock
    for key share skip locked
),
-- blocked: the chosen jobs that may not start yet, locked.
blocked as materialized (
    select got.id
    from chosen
    cross join lateral (
        select job.id
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.id = chosen.id
            and job.status = 'todo' and pg_catalog.num_nulls(job.hold) = 1
            and job.lock = chosen.lock
        for update skip locked
    ) as got
    -- A job is blocked if another one holds its lock and cannot release it now (`holder`), or has just
    -- taken it in this claim (`acquired`).
    where chosen.lock is not null
        and chosen.id not in (select acquired.job_id from acquired)
        and (
            chosen.lock in (select holder.lock from holder)
            or chosen.lock in (select acquired.lock from acquired)
        )
),
-- parked: the blocked jobs, which no claim reads again before they are passed on.
parked as (
    update procrastinate_jobs as job
    set hold = 'lock'
    where job.partition = %(partition)s::smallint and job.id = any(array(select blocked.id from blocked))
    returning job.id
),
-- claimed: the wanted jobs without a lock, and those that got theirs. The worker holds them now.
claimed as (
    update procrastinate_jobs as job
    -- (The limits: a row that was changed by hand keeps no other from being claimed.)
    set status = 'doing',
        worker_id = %(worker_id)s::bigint,
        attempts = least(greatest(job.attempts, 0), 2147483646) + 1,
        lease = least(job.lease, 2147483646) + 1,
        started_at = statement_timestamp(),
        finished_at = null
    where job.partition = %(partition)s::smallint and job.id = any(array(
        select wanted.id from wanted where wanted.lock is null
        union all
        select acquired.job_id from acquired
    ))
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
from (
    select
        (select count(*) from parked)::integer as aside,
        ((select count(*) from chosen) + (select count(*) from elsewhere))::integer as met
) as met
order by priority desc, id
