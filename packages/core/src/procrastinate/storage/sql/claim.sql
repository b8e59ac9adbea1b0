-- Claiming. A claim takes the first ready jobs of some queues in order of (priority desc, id), takes the
-- locks that they need, and makes the worker their holder. It fails for no lock: a job that may not start
-- yet because of its lock is parked (hold = 'lock'), so that the next claim does not read it again.
-- Releasing a lock takes the best job of each queue out of the parking again (release_locks).
--
-- A claim first chooses without locking any row, because only the merged order of all its queues says
-- which jobs come first. It then locks rows in that order, passes over those that another transaction
-- holds, and stops when it has enough. So it locks no row that it neither takes nor parks. (A claim that
-- locked while it read took 500 jobs of 10 queues and locked 5,000; other workers passed over them all.)
--
-- Most jobs have no lock, and planning what is done about locks takes longer than the rest of a small
-- claim. So there are two kinds: `claim_unlocked_*` takes jobs without a lock, if no other is among the
-- first ones, and `claim_*` takes both sorts. Each has a text for scans in full and one for scans of
-- a level, and one for each number of queues that is worth a plan of its own.
--
-- No deadlock, because a claim waits in no circle. It waits for no job. It waits for a lock only if
-- another claim is taking it or a release is removing it. Claims take locks in order, and a removal
-- is the last thing that its transaction does. A claim may hold a job that it did not get, because a row
-- is locked before it is seen to have changed; a release waits for such rows.
--
-- A lost claim only means that its jobs still wait. So it need not reach the disk at once, and
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

-- fragment: ready_full
-- The ready jobs of a queue above a priority, which may lie below all that there are.
from {schema}.procrastinate_jobs as job
where job.partition = 0 and job.queue_name = {>queue}
    and job.status = 'todo' and job.hold is null
    and job.priority > %(above)s::bigint{known}

-- fragment: ready_level
-- The ready jobs of one priority above a low-water mark. Dead index entries gather at the end
-- that is read first; starting above them keeps a busy queue fast. What the mark hides (late
-- commits, retries, other priorities) is found by the next full scan.
from {schema}.procrastinate_jobs as job
where job.partition = 0 and job.queue_name = {>queue}
    and job.status = 'todo' and job.hold is null
    and job.priority = %(priority)s::integer and job.id > {>low}{known}

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

-- fragment: of_several
-- The first jobs of all queues together, in order. It reads as many of each queue as may be needed of it,
-- which is the cheapest for a few jobs or queues.
chosen as materialized (
    select found.id, found.priority, found.queue_name, found.lock
    from unnest(%(queue_names)s::text[], %(lows)s::bigint[]) as scan(queue_name, low)
    cross join lateral (
        select job.id, job.priority, job.queue_name, job.lock
        {>ready queue="scan.queue_name" low="scan.low"}
        order by job.priority desc, job.id
        limit %(each)s::integer
    ) as found
    order by found.priority desc, found.id
    limit %(scanned)s::integer
)

-- fragment: of_many
-- The same for many jobs of many queues: it reads a share of each queue, and then all that is wanted of
-- those queues whose share ended before the last place. (500 of 100 queues: 5 ms instead of 18.)
share as materialized (
    select
        found.id, found.priority, found.queue_name, found.lock, scan.low,
        row_number() over (order by found.priority desc, found.id) as place
    from unnest(%(queue_names)s::text[], %(lows)s::bigint[]) as scan(queue_name, low)
    cross join lateral (
        select job.id, job.priority, job.queue_name, job.lock
        {>ready queue="scan.queue_name" low="scan.low"}
        order by job.priority desc, job.id
        limit %(share)s::integer
    ) as found
),
crowded as materialized (
    select share.queue_name, share.low
    from share
    group by share.queue_name, share.low
    having count(*) = %(share)s::integer and max(share.place) < %(scanned)s::integer
),
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
            {>ready queue="scan.queue_name" low="scan.low"}
            order by job.priority desc, job.id
            limit %(scanned)s::integer
        ) as rest
    ) as found
    order by found.priority desc, found.id
    limit %(scanned)s::integer
)

-- fragment: unlocked_of_chosen
-- All or none: none if a job with a lock is among as many as there is room for.
--
-- The hold is asked for in a way that no partial index answers: a plan that looked for each id in the
-- index of ready jobs read all of it each time.
{>chosen ready=ready},
met as materialized (
    select count(chosen.lock)::integer as aside, count(*)::integer as met
    from chosen
),
candidate as materialized (
    select got.id
    from chosen
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.partition = 0 and job.id = chosen.id
            and job.status = 'todo' and num_nulls(job.hold) = 1
        for update skip locked
    ) as got
    where chosen.lock is null
    limit (
        select case when count(first.lock) = 0 then %(limit)s::integer else 0 end
        from (select chosen.lock from chosen limit %(limit)s::integer) as first
    )
)

-- fragment: unlocked_of_one
-- From one queue, as it most often is: what is chosen is locked while it is read, which costs the least.
candidate as materialized (
    select job.id, job.lock
    {>ready queue="%(queue_name)s::text" low="%(low)s::bigint"}
    order by job.priority desc, job.id
    limit %(limit)s::integer
    for update skip locked
)

-- fragment: unlocked_of_one_wary
-- The same if jobs with locks were met lately, which would be locked in vain: it looks first. (That takes
-- 80 microseconds, of 850 for 100 jobs.)
met as materialized (
    select count(first.lock)::integer as aside, count(*)::integer as met
    from (
        select job.lock
        {>ready queue="%(queue_name)s::text" low="%(low)s::bigint"}
        order by job.priority desc, job.id
        limit %(limit)s::integer
    ) as first
),
candidate as materialized (
    select job.id
    {>ready queue="%(queue_name)s::text" low="%(low)s::bigint"}
        and job.lock is null
    order by job.priority desc, job.id
    limit (select case when met.aside = 0 then %(limit)s::integer else 0 end from met)
    for update skip locked
)

-- fragment: begun
status = 'doing',
    worker_id = %(worker_id)s::bigint,
    attempts = job.attempts + 1,
    lease = job.lease + 1,
    started_at = statement_timestamp(),
    finished_at = null

-- fragment: answer
-- One row about the claim, and after it (for it has no priority) one for each job. What stands in each
-- row is read for each job: two counts, the crashes and the time took the worker 1.7 microseconds.
select
    claimed.*, null::integer as aside, null::integer as met, null::bigint as moment_us
from claimed
union all
select
    null, null, null, null, null, null, null, null, null, null, null, null,
    met.aside, met.met, (extract(epoch from statement_timestamp()) * 1000000)::bigint
from {>met}
order by priority desc, id

-- fragment: claim_unlocked
{>candidates chosen=chosen ready=ready},
claimed as (
    update {schema}.procrastinate_jobs as job
    set {>begun}
    where job.partition = 0 and job.id = any(array({>ids}))
    returning {>claimed_columns}
)
{>answer met=met}

-- fragment: head
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
            {>best_of_queues before="ready" those="job.hold is null"}
        ),
        parking as (
            {>best_of_queues before="parking" those="job.hold = 'lock'"}
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
        select from {schema}.procrastinate_locks as held
        where held.lock = contended.lock and held.partition = 0
    )
)

-- fragment: startable
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

-- fragment: ready_heads_elsewhere
select head.id
from head
where head.is_ready and head.queue_name = any(%(queue_names)s::text[])
    and head.id not in (select chosen.id from chosen)

-- fragment: taken_locks
acquired as (
    insert into {schema}.procrastinate_locks as held (lock, partition, job_id)
    select wanted.lock, 0, wanted.id from wanted where wanted.lock is not null order by wanted.lock
    on conflict do nothing
    returning held.lock, held.job_id
),
holder as materialized (
    -- Locked against a release until this claim commits: the releaser then sees what is parked.
    -- If a release came first nothing is parked: the job stays ready and undecided.
    -- Only after the locks above were taken (hence the count), which is where this may wait.
    select held.lock
    from {schema}.procrastinate_locks as held
    where held.partition = 0
        and held.lock = any(array(select chosen.lock from chosen where lock is not null))
        and (select count(*) from acquired) >= 0
    order by held.lock
    for key share skip locked
)

-- fragment: is_blocked
chosen.lock is not null
    and chosen.id not in (select acquired.job_id from acquired)
    and (
        chosen.lock in (select holder.lock from holder)
        or chosen.lock in (select acquired.lock from acquired)
    )

-- fragment: parked_and_claimed
parked as (
    update {schema}.procrastinate_jobs as job
    set hold = 'lock'
    where job.partition = 0 and job.id = any(array(select blocked.id from blocked))
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

-- fragment: met_with_locks
(
    select
        (select count(*) from parked)::integer as aside,
        ((select count(*) from chosen) + (select count(*) from elsewhere))::integer as met
) as met

-- fragment: claim
{>chosen ready=ready},
{>head},
elsewhere as materialized (
    select head.id, head.priority, head.lock
    from head
    where head.id in (
        {>ready_heads_elsewhere}
    )
),
wanted as materialized (
    select got.id, startable.lock
    from (
        {>startable}
        order by priority desc, id
    ) as startable
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.partition = 0 and job.id = startable.id
            and job.status = 'todo' and num_nulls(job.hold) = 1{known}
        for update skip locked
    ) as got
    limit %(limit)s::integer
),
{>taken_locks},
blocked as materialized (
    select got.id
    from chosen
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.partition = 0 and job.id = chosen.id
            and job.status = 'todo' and num_nulls(job.hold) = 1
        for update skip locked
    ) as got
    where {>is_blocked}
),
{>parked_and_claimed}
{>answer met=met_with_locks}

-- fragment: claim_of_one
-- From one queue what is chosen is locked while it is read, because all of it is taken or parked. (But for
-- jobs whose lock is just being released, or whose line has its head in a queue that is served and not
-- scanned.) It may not choose among more than there is room for.
chosen as materialized (
    select job.id, job.priority, job.lock
    {>ready queue="%(queue_name)s::text" low="%(low)s::bigint"}
    order by job.priority desc, job.id
    limit %(limit)s::integer
    for update skip locked
),
{>head},
elsewhere as materialized (
    select job.id, job.priority, job.lock
    from {schema}.procrastinate_jobs as job
    where job.partition = 0 and job.status = 'todo' and num_nulls(job.hold) = 1
        and job.id = any(array(
            {>ready_heads_elsewhere}
        )){known}
    for update skip locked
),
wanted as materialized (
    select startable.id, startable.lock
    from (
        {>startable}
    ) as startable
    order by startable.priority desc, startable.id
    limit %(limit)s::integer
),
{>taken_locks},
blocked as materialized (
    select chosen.id
    from chosen
    where {>is_blocked}
),
{>parked_and_claimed}
{>answer met=met_with_locks}

-- name: claim_unlocked_full_of_one :many
-- Returns one row (12 nulls, aside, met, moment_us), and (job..., 3 nulls) for each claimed job. It met so many
-- ready jobs, of which those aside have a lock. Of the others, those that are not claimed are in the
-- hands of another transaction. The moment is that of the claim, in microseconds since the epoch;
-- `crashes` is null for most.
-- settings: asynchronous
with {>claim_unlocked candidates=unlocked_of_one ready=ready_full
    ids="select candidate.id from candidate where candidate.lock is null"
    met="(select count(candidate.lock)::integer as aside, count(*)::integer as met from candidate) as met"}

-- name: claim_unlocked_level_of_one :many
-- The same above a queue's low-water mark.
-- settings: asynchronous
with {>claim_unlocked candidates=unlocked_of_one ready=ready_level
    ids="select candidate.id from candidate where candidate.lock is null"
    met="(select count(candidate.lock)::integer as aside, count(*)::integer as met from candidate) as met"}

-- name: claim_unlocked_full_of_one_wary :many
-- settings: asynchronous
with {>claim_unlocked candidates=unlocked_of_one_wary ready=ready_full
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_level_of_one_wary :many
-- settings: asynchronous
with {>claim_unlocked candidates=unlocked_of_one_wary ready=ready_level
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_full_of_several :many
-- settings: asynchronous
with {>claim_unlocked candidates=unlocked_of_chosen chosen=of_several ready=ready_full
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_level_of_several :many
-- settings: asynchronous
with {>claim_unlocked candidates=unlocked_of_chosen chosen=of_several ready=ready_level
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_full_of_many :many
-- settings: asynchronous
with {>claim_unlocked candidates=unlocked_of_chosen chosen=of_many ready=ready_full
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_level_of_many :many
-- settings: asynchronous
with {>claim_unlocked candidates=unlocked_of_chosen chosen=of_many ready=ready_level
    ids="select candidate.id from candidate" met="met"}

-- name: claim_full_of_one :many
-- Returns one row (12 nulls, aside, met, moment_us), and (job..., 3 nulls) for each claimed job. It met so many
-- ready jobs, of which those aside are parked now. The others that are not claimed were left as they
-- were, because another transaction was just deciding about them or their line (or because there was no
-- room).
-- settings: asynchronous
with {>claim_of_one ready=ready_full}

-- name: claim_level_of_one :many
-- settings: asynchronous
with {>claim_of_one ready=ready_level}

-- name: claim_full_of_several :many
-- With more `scanned` than the limit, more can be parked at a time.
-- settings: asynchronous
with {>claim chosen=of_several ready=ready_full}

-- name: claim_level_of_several :many
-- settings: asynchronous
with {>claim chosen=of_several ready=ready_level}

-- name: claim_full_of_many :many
-- settings: asynchronous
with {>claim chosen=of_many ready=ready_full}

-- name: claim_level_of_many :many
-- settings: asynchronous
with {>claim chosen=of_many ready=ready_level}

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
            and job.status = 'todo' and job.hold is null{known}
        order by job.priority desc, job.id
        limit 1
    ) as locked_by_another
)::integer

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
