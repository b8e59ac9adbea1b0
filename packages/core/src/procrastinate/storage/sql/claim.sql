-- Claiming. A claim reads the ready jobs of some queues in order of (priority desc, id), takes the
-- locks that they need, and makes the worker their holder. It never waits for another claim of
-- an unlocked job, and it fails for no lock: a job that may not start yet because of its lock is
-- parked (hold = 'lock'), so that the next claim does not read it again; whoever releases the
-- lock takes the best of each queue out of the parking again (release_locks).
--
-- Most jobs have no lock, and planning what is done about locks takes longer than the rest of a small
-- claim. So a claim exists twice: `claim_unlocked_*` leaves jobs with a lock where they are and counts
-- them, and `claim_*` takes both kinds.
--
-- No deadlock, because nobody waits in a circle. A claim waits for no job, and for a lock only where
-- another claim is taking it or a release is removing it; claims take locks in order, and a removal
-- is the last thing that its transaction does. That a claim may hold jobs which it did not get (a row
-- is locked before it is seen to have changed) makes this necessary: a release waits for such rows.
--
-- A lost claim only means that its jobs still wait; so it need not reach the disk at once, and
-- the transaction commits asynchronously.

-- name: ready_queues :many
-- The names of all queues that have a ready job: one index probe for each. (Not with min():
-- PostgreSQL 15 then read the whole index of a table that was never analyzed.)
with recursive queue(name) as (
    select (
        select job.queue_name
        from {schema}.procrastinate_jobs as job
        where job.partition = 0 and job.status = 'todo' and job.hold is null
        order by job.queue_name
        limit 1
    )
    union all
    select (
        select job.queue_name
        from {schema}.procrastinate_jobs as job
        where job.partition = 0 and job.status = 'todo' and job.hold is null
            and job.queue_name > queue.name
        order by job.queue_name
        limit 1
    )
    from queue
    where queue.name is not null
)
select name from queue where name is not null

-- fragment: scan_full
-- All ready jobs of a queue.
select job.id, job.priority, job.queue_name, job.lock
from {schema}.procrastinate_jobs as job
where job.partition = 0 and job.queue_name = {>queue}
    and job.status = 'todo' and job.hold is null
order by job.priority desc, job.id
limit {>scanned}
for update skip locked

-- fragment: scan_marked
-- The ready jobs of one priority above a low-water mark. Dead index entries gather at the end
-- that is read first; starting above them keeps a busy queue fast. What the mark hides (late
-- commits, retries, other priorities) is found by the next full scan.
select job.id, job.priority, job.queue_name, job.lock
from {schema}.procrastinate_jobs as job
where job.partition = 0 and job.queue_name = {>queue}
    and job.status = 'todo' and job.hold is null
    and job.priority = {>priority} and job.id > {>low}
order by job.id
limit {>scanned}
for update skip locked

-- fragment: which_are_parked
job.hold = 'lock'

-- fragment: which_are_ready
job.hold is null

-- fragment: in_ready
ready

-- fragment: in_parking
parking

-- fragment: best_of_queues
-- The best job of a line in each queue, from queue to queue: one index probe for each. (In order of
-- the hold, too, because the planner does not see that it is the same where it is null.)
(
    select job.id, job.priority, job.queue_name
    from {schema}.procrastinate_jobs as job
    where job.lock = contended.lock and job.status = 'todo'
        and job.hold is distinct from 'schedule' and {>those}
    order by job.hold, job.queue_name, job.priority desc, job.id
    limit 1
)
union all
select following.id, following.priority, following.queue_name
from {>before} as before
cross join lateral (
    select job.id, job.priority, job.queue_name
    from {schema}.procrastinate_jobs as job
    where job.lock = contended.lock and job.queue_name > before.queue_name and job.status = 'todo'
        and job.hold is distinct from 'schedule' and {>those}
    order by job.hold, job.queue_name, job.priority desc, job.id
    limit 1
) as following

-- fragment: each_queue
scan.queue_name

-- fragment: each_priority
scan.priority

-- fragment: each_low
scan.low

-- fragment: the_queue
%(queue_name)s::text

-- fragment: the_priority
%(mark_priority)s::integer

-- fragment: the_low
%(mark_id)s::bigint

-- fragment: of_several
    select found.id, found.priority, found.queue_name, found.lock
    from unnest(
        %(queue_names)s::text[], %(mark_priorities)s::integer[], %(mark_ids)s::bigint[]
    ) as scan(queue_name, priority, low)
    cross join lateral (
        {>scan scanned=scanned queue=each_queue priority=each_priority low=each_low}
    ) as found
    order by found.priority desc, found.id
    limit {>scanned}

-- fragment: of_one
    {>scan scanned=scanned queue=the_queue priority=the_priority low=the_low}

-- fragment: begun
status = 'doing',
worker_id = %(worker_id)s::bigint,
attempts = job.attempts + 1,
lease = job.lease + 1,
started_at = statement_timestamp(),
finished_at = null

-- fragment: claimed_columns
-- What the worker does not know of a job that it just got, but for the time: that is the same for all.
job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
    job.queueing_lock, job.attempts, job.deferred_at, job.scheduled_at, job.lease,
    nullif(job.crashes, 0) as crashes

-- fragment: answer
-- One row about the claim, and after it (for it has no priority) one for each job. What stands in each
-- row is read for each job: two counts, the crashes and the time took the worker 1.7 microseconds.
select
    claimed.*, null::integer as aside, null::integer as undecided, null::float8 as moment
from claimed
union all
select
    null, null, null, null, null, null, null, null, null, null, null, null,
    ({>aside})::integer, ({>undecided})::integer, date_part('epoch', statement_timestamp())
from {>asynchronously}
order by priority desc, id

-- fragment: asynchronously
(select set_config('synchronous_commit', 'off', true)) as setting

-- fragment: no_more
%(limit)s::integer

-- fragment: more
%(scanned)s::integer

-- fragment: locked
select count(*) from candidate where candidate.lock is not null

-- fragment: not_told
0

-- fragment: those_parked
select count(*) from parked

-- fragment: left_as_they_were
case
    when (select count(*) from claimed) = %(limit)s::integer then 0
    else (select count(*) from candidate) + (select count(*) from elsewhere)
        - (select count(*) from parked) - (select count(*) from claimed)
end

-- fragment: claim_unlocked
candidate as materialized (
    {>queues scan=scan scanned=no_more}
),
claimed as (
    update {schema}.procrastinate_jobs as job
    set {>begun}
    where job.partition = 0
        and job.id = any(array(select candidate.id from candidate where candidate.lock is null))
    returning {>claimed_columns}
)
{>answer aside=locked undecided=not_told}

-- fragment: claim
candidate as materialized (
    {>of_several scan=scan scanned=more}
),
head as materialized (
    -- The first of each free lock's line, as far as the served queues go (null: all). A lock whose holder
    -- is seen here is not free, even if it is given up before it could be taken below: the holder may go
    -- back to the line, and this snapshot would not show it there.
    select first.id, first.is_ready
    from (select distinct candidate.lock from candidate where candidate.lock is not null)
        as contended
    cross join lateral (
        with recursive ready as (
            {>best_of_queues before=in_ready those=which_are_ready}
        ),
        parking as (
            {>best_of_queues before=in_parking those=which_are_parked}
        )
        select best.id, best.is_ready
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
        select from {schema}.procrastinate_locks as held
        where held.lock = contended.lock and held.partition = 0
    )
),
elsewhere as materialized (
    -- Those of them that the scan did not come to: a released lock's next job stands below the mark. (One
    -- that does not get its lock stays ready, for the next claim that meets its line or scans it.)
    select job.id, job.priority, job.queue_name, job.lock
    from {schema}.procrastinate_jobs as job
    where job.partition = 0 and job.status = 'todo' and job.hold is null
        and job.queue_name = any(%(queue_names)s::text[])
        and job.id = any(array(
            select head.id
            from head
            where head.is_ready and head.id not in (select candidate.id from candidate)
        ))
    for update skip locked
),
wanted as materialized (
    -- What was scanned beyond the limit is only there to be parked.
    select startable.id, startable.lock
    from (
        select candidate.*
        from candidate
        where candidate.lock is null or candidate.id in (select head.id from head)
        union all
        select elsewhere.* from elsewhere
    ) as startable
    order by startable.priority desc, startable.id
    limit %(limit)s::integer
),
acquired as (
    insert into {schema}.procrastinate_locks as held (lock, partition, job_id)
    select wanted.lock, 0, wanted.id from wanted where wanted.lock is not null order by wanted.lock
    on conflict do nothing
    returning held.lock, held.job_id
),
holder as materialized (
    -- Locked against a release until this claim commits: the releaser then sees what is parked.
    -- Where a release came first nothing is parked: the job stays ready and undecided.
    -- Only after the locks above were taken (hence the count), which is where this may wait.
    select held.lock
    from {schema}.procrastinate_locks as held
    where held.partition = 0
        and held.lock = any(array(select candidate.lock from candidate where lock is not null))
        and (select count(*) from acquired) >= 0
    order by held.lock
    for key share skip locked
),
parked as (
    update {schema}.procrastinate_jobs as job
    set hold = 'lock'
    where job.partition = 0 and job.id = any(array(
        select candidate.id
        from candidate
        where candidate.lock is not null
            and candidate.id not in (select acquired.job_id from acquired)
            and (
                candidate.lock in (select holder.lock from holder)
                or candidate.lock in (select acquired.lock from acquired)
            )
    ))
    returning job.id
),
claimed as (
    update {schema}.procrastinate_jobs as job
    set {>begun}
    where job.partition = 0 and job.id = any(array(
        select wanted.id from wanted where wanted.lock is null
        union all
        select acquired.job_id from acquired
    ))
    returning {>claimed_columns}
)
{>answer aside=those_parked undecided=left_as_they_were}

-- name: claim_unlocked_full :many
-- Returns one row (12 nulls, locked, 0, moment), and (job..., 3 nulls) for each claimed job.
-- `locked` counts the jobs that were left because they have a lock; the moment is that of the claim, in
-- seconds since the epoch; `crashes` is null for most.
with {>claim_unlocked queues=of_several scan=scan_full}

-- name: claim_unlocked_marked :many
-- The same above each queue's low-water mark.
with {>claim_unlocked queues=of_several scan=scan_marked}

-- name: claim_unlocked_full_of_one :many
-- The same for one queue, as it most often is: a third less to plan and to start.
with {>claim_unlocked queues=of_one scan=scan_full}

-- name: claim_unlocked_marked_of_one :many
with {>claim_unlocked queues=of_one scan=scan_marked}

-- name: any_ready :one
-- Whether a job is ready, after a claim that saw none: another transaction was just deciding about it.
-- (Each claim would be planned for 0.2 ms longer, if it answered this by itself.) In order, so that no
-- plan reads the whole table in search of any one.
select exists (
    select
    from unnest(%(queue_names)s::text[]) as scanned(queue_name)
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.partition = 0 and job.queue_name = scanned.queue_name
            and job.status = 'todo' and job.hold is null
        order by job.priority desc, job.id
        limit 1
    ) as locked_by_another
)::integer

-- name: claim_full :many
-- Returns one row (12 nulls, parked, undecided, moment), and (job..., 3 nulls) for each claimed
-- job. `undecided` counts the jobs that it saw and left as they were, for another transaction was just
-- deciding about them or their line, where it brings fewer jobs than the limit. With more `scanned`
-- than the limit, more can be parked at a time.
with {>claim scan=scan_full}

-- name: claim_marked :many
-- The same above each queue's low-water mark.
with {>claim scan=scan_marked}

-- name: promote_due :one
-- Makes scheduled jobs ready whose time has come, wakes the workers of their queues, and
-- returns (how many, microseconds until the next one or null).
with due as materialized (
    select job.id
    from {schema}.procrastinate_jobs as job
    where job.partition = 0 and job.status = 'todo' and job.hold = 'schedule'
        and job.scheduled_at <= statement_timestamp()
    order by job.scheduled_at
    limit %(limit)s::integer
    for update skip locked
),
promoted as (
    update {schema}.procrastinate_jobs as job
    set hold = null
    where job.partition = 0 and job.id = any(array(select due.id from due))
    returning job.queue_name
),
woken as materialized (
    select pg_notify('procrastinate_jobs', promoted.queue_name)
    from promoted
    group by promoted.queue_name
)
select
    (select count(*) from promoted)::integer,
    (
        select (extract(epoch from min(job.scheduled_at) - statement_timestamp()) * 1000000)::bigint
        from {schema}.procrastinate_jobs as job
        where job.partition = 0 and job.status = 'todo' and job.hold = 'schedule'
            and job.scheduled_at > statement_timestamp()
    ),
    (select count(*) from woken)::integer
