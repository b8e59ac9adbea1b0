-- Claiming. A claim reads the ready jobs of some queues in order of (priority desc, id), takes the
-- locks that they need, and makes the worker their holder. It never waits for another claim of
-- an unlocked job, and it fails for no lock: a job that may not start yet because of its lock is
-- parked (hold = 'lock'), so that the next claim does not read it again; whoever releases the
-- lock takes the best of each queue out of the parking again (release_locks).
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
-- All ready jobs of the queues.
select job.id, job.priority, job.queue_name, job.lock
from {schema}.procrastinate_jobs as job
where job.partition = 0 and job.queue_name = scan.queue_name
    and job.status = 'todo' and job.hold is null
order by job.priority desc, job.id
limit %(limit)s::integer
for update skip locked

-- fragment: scan_marked
-- The ready jobs of one priority above a low-water mark. Dead index entries gather at the end
-- that is read first; starting above them keeps a busy queue fast. What the mark hides (late
-- commits, retries, other priorities) is found by the next full scan.
select job.id, job.priority, job.queue_name, job.lock
from {schema}.procrastinate_jobs as job
where job.partition = 0 and job.queue_name = scan.queue_name
    and job.status = 'todo' and job.hold is null
    and job.priority = scan.priority and job.id > scan.low
order by job.id
limit %(limit)s::integer
for update skip locked

-- fragment: first_in_line
-- The best ready job of a line in one queue and the best parked one, each at the end of an index
-- (whose order begins with the hold, also where that is null).
(
    select job.id, job.priority, job.hold
    from {schema}.procrastinate_jobs as job
    where job.lock = line.lock and job.queue_name = line.queue_name and job.status = 'todo'
        and job.hold is distinct from 'schedule' and job.hold is null
    order by job.hold, job.priority desc, job.id
    limit 1
)
union all
(
    select job.id, job.priority, job.hold
    from {schema}.procrastinate_jobs as job
    where job.lock = line.lock and job.queue_name = line.queue_name and job.status = 'todo'
        and job.hold is distinct from 'schedule' and job.hold = 'lock'
    order by job.priority desc, job.id
    limit 1
)

-- fragment: claim
candidate as materialized (
    select found.id, found.priority, found.queue_name, found.lock
    from unnest(
        %(queue_names)s::text[], %(mark_priorities)s::integer[], %(mark_ids)s::bigint[]
    ) as scan(queue_name, priority, low)
    cross join lateral (
        {>scan}
    ) as found
    order by found.priority desc, found.id
    limit %(limit)s::integer
),
head as materialized (
    -- The first of each lock's line, as far as these queues go; it must be a candidate itself.
    select first.id, contended.lock
    from (select distinct candidate.lock from candidate where candidate.lock is not null)
        as contended
    cross join lateral (
        select best.id
        from (
            select contended.lock, served.queue_name
            from unnest(%(queue_names)s::text[]) as served(queue_name)
        ) as line
        cross join lateral (
            {>first_in_line}
        ) as best
        order by best.priority desc, best.id
        limit 1
    ) as first
    where first.id in (select candidate.id from candidate)
),
acquired as (
    insert into {schema}.procrastinate_locks as held (lock, partition, job_id)
    select head.lock, 0, head.id from head order by head.lock
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
    set status = 'doing',
        worker_id = %(worker_id)s::bigint,
        attempts = job.attempts + 1,
        started_at = statement_timestamp(),
        finished_at = null
    where job.partition = 0 and job.id = any(array(
        select candidate.id from candidate where candidate.lock is null
        union all
        select acquired.job_id from acquired
    ))
    returning job.*
)
select
    (select count(*) from parked)::integer as parked,
    (
        case when exists (select from candidate)
            then (select count(*) from candidate) - (select count(*) from parked)
                - (select count(*) from claimed)
            else (
                -- In order, so that no plan reads the whole table in search of any one.
                select exists (
                    select
                    from unnest(%(queue_names)s::text[]) as served(queue_name)
                    cross join lateral (
                        select job.id
                        from {schema}.procrastinate_jobs as job
                        where job.partition = 0 and job.queue_name = served.queue_name
                            and job.status = 'todo' and job.hold is null
                        order by job.priority desc, job.id
                        limit 1
                    ) as locked_by_another
                )::integer
            )
        end
    )::integer as undecided,
    job.crashes,
    {>job_columns}
from (select set_config('synchronous_commit', 'off', true)) as setting
left join claimed as job on true
order by job.priority desc, job.id

-- name: claim_full :many
-- Returns (parked, undecided, crashes, job...) for each claimed job, or one row with no job.
-- `undecided` counts the ready jobs that another transaction was just deciding about (where all
-- of them are: 1).
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
