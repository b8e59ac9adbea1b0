-- name: claim_full_of_one :many
-- Returns one row (12 nulls, aside, met, moment_us), and (job..., 3 nulls) for each claimed job. It met so many
-- ready jobs, of which those aside are parked now. The others that are not claimed were left as they
-- were, because another transaction was just deciding about them or their line (or because there was no
-- room).
-- settings: asynchronous
-- From one queue what is chosen is locked while it is read, because all of it is taken or parked. (But for
-- jobs whose lock is just being released, or whose line has its head in a queue that is served and not
-- scanned.) It may not choose among more than there is room for.
with chosen as materialized (
    select job.id, job.priority, job.lock
    -- The ready jobs of a queue above a priority, which may lie below all that there are.
    from procrastinate_jobs as job
    where job.partition = 0 and job.queue_name = %(queue_name)s::text
        and job.status = 'todo' and job.hold is null
        and job.priority > %(above)s::bigint{known}
    order by job.priority desc, job.id
    limit %(limit)s::integer
    for update skip locked
),
-- The first of each free lock's line, as far as the served queues go (null: all). A lock whose holder
-- is seen here is not free, even if it is given up before it could be taken below: the holder may go
-- back to the line, and this snapshot would not show it there. (The locks as an array, of which the
-- planner expects ten: of a subquery it expected 200, and so much of the whole that it was compiled.)
head as materialized (
    select first.id, first.priority, first.queue_name, contended.lock, first.is_ready
    from unnest(array(
        select distinct chosen.lock from chosen where chosen.lock is not null
    )) as contended(lock)
    cross join lateral (
        with recursive ready as (
            -- The best job of a line in each queue, from queue to queue: one index probe for each. (In order of
            -- the hold, too, because the planner does not see that it is the same where it is null.)
            (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                where job.lock = contended.lock and job.status = 'todo'
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
                where job.lock = contended.lock and job.queue_name > before.queue_name and job.status = 'todo'
                    and job.hold is distinct from 'schedule' and job.hold is null
                order by job.hold, job.queue_name, job.priority desc, job.id
                limit 1
            ) as following
        ),
        parking as (
            (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                where job.lock = contended.lock and job.status = 'todo'
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
                where job.lock = contended.lock and job.queue_name > before.queue_name and job.status = 'todo'
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
        where %(served)s::text[] is null or best.queue_name = any(%(served)s::text[])
        order by best.priority desc, best.id
        limit 1
    ) as first
    where not exists (
        select from procrastinate_locks as held
        where held.lock = contended.lock and held.partition = 0
    )
),
elsewhere as materialized (
    select job.id, job.priority, job.lock
    from procrastinate_jobs as job
    where job.partition = 0 and job.status = 'todo' and num_nulls(job.hold) = 1
        and job.id = any(array(
            select head.id
            from head
            where head.is_ready and head.queue_name = any(%(queue_names)s::text[])
                and head.id not in (select chosen.id from chosen)
        )){known}
    for update skip locked
),
wanted as materialized (
    select startable.id, startable.lock
    from (
        -- Those without a lock, the heads of free locks, and the ready heads that the scan did not come to: a
        -- released lock's next job may stand below the mark. (One that does not get its lock stays ready, for
        -- the next claim that meets its line or scans it.) What was scanned beyond the limit is only there to be
        -- parked.
        select chosen.id, chosen.priority, chosen.lock
        from chosen
        where chosen.lock is null or chosen.id in (select head.id from head)
        union all
        select elsewhere.id, elsewhere.priority, elsewhere.lock
        from elsewhere
    ) as startable
    order by startable.priority desc, startable.id
    limit %(limit)s::integer
),
acquired as (
    insert into procrastinate_locks as held (lock, partition, job_id)
    select wanted.lock, 0, wanted.id from wanted where wanted.lock is not null order by wanted.lock
    on conflict do nothing
    returning held.lock, held.job_id
),
holder as materialized (
    -- Locked against a release until this claim commits: the releaser then sees what is parked.
    -- If a release came first nothing is parked: the job stays ready and undecided.
    -- Only after the locks above were taken (hence the count), which is where this may wait.
    select held.lock
    from procrastinate_locks as held
    where held.partition = 0
        and held.lock = any(array(select chosen.lock from chosen where lock is not null))
        and (select count(*) from acquired) >= 0
    order by held.lock
    for key share skip locked
),
blocked as materialized (
    select chosen.id
    from chosen
    where chosen.lock is not null
        and chosen.id not in (select acquired.job_id from acquired)
        and (
            chosen.lock in (select holder.lock from holder)
            or chosen.lock in (select acquired.lock from acquired)
        )
),
parked as (
    update procrastinate_jobs as job
    set hold = 'lock'
    where job.partition = 0 and job.id = any(array(select blocked.id from blocked))
    returning job.id
),
claimed as (
    update procrastinate_jobs as job
    set status = 'doing',
        worker_id = %(worker_id)s::bigint,
        attempts = job.attempts + 1,
        lease = job.lease + 1,
        started_at = statement_timestamp(),
        finished_at = null
    where job.partition = 0 and job.id = any(array(
        select wanted.id from wanted where wanted.lock is null
        union all
        select acquired.job_id from acquired
    ))
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
from (
    select
        (select count(*) from parked)::integer as aside,
        ((select count(*) from chosen) + (select count(*) from elsewhere))::integer as met
) as met
order by priority desc, id
