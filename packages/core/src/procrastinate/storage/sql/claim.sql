-- Claiming. A claim takes the first ready jobs of some queues in order of (priority desc, id),
-- takes the locks that they need, and makes the worker their holder. A lock that is not free fails
-- no claim: see locks.sql. The parts of a claim are scan (chosen), admit (head to parked) and begin
-- (claimed).
--
-- A claim of several queues first chooses without locking any row, because only the merged order of
-- all its queues says which jobs come first. It then locks rows in that order, passes over those
-- that another transaction holds, and stops when it has enough. So it locks no row that it neither
-- takes nor parks. (A claim that locked while it read took 500 jobs of 10 queues and locked 5,000;
-- other workers passed over them all.)
--
-- Most jobs have no lock, and planning what is done about locks takes longer than the rest of a
-- small claim. So there are two kinds: `claim_unlocked_*` takes jobs without a lock, if no other is
-- among the first ones, and `claim_*` takes both sorts. Each has a text for scans in full and one
-- for scans of a level, and one for each number of queues that is worth a plan of its own.
--
-- No deadlock, because a claim waits in no circle. It waits for no job. It waits for a lock only if
-- another claim is taking it or a release is removing it. A claim may lock a row and then find that
-- the job has changed. The row stays locked until the claim commits, and a release waits for it.
--
-- A lost claim only means that its jobs still wait. So it need not reach the disk at once, and the
-- transaction commits asynchronously.

-- name: ready_queues :many
-- settings: prepared
-- Returns the names of all queues that have a ready job, by one index probe for each. (Not with
-- min(): PostgreSQL 15 then read the whole index of a table that was never analyzed.)
with recursive queue(name) as (
    select (
        select job.queue_name
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null
        order by job.queue_name
        limit 1
    )
    union all
    select (
        select job.queue_name
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null
            and job.queue_name > queue.name
        order by job.queue_name
        limit 1
    )
    from queue
    where queue.name is not null
)
select name from queue where name is not null

-- fragment: ready_full
-- The ready jobs of a queue with a priority above `above`: that of the jobs which the worker is busy
-- with, or, to scan all, a number below every integer.
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.queue_name = {>queue}
    and job.status = 'todo' and job.hold is null
    and job.priority > %(above)s::bigint{known}

-- fragment: ready_level
-- The ready jobs of one priority above a low-water mark. Dead index entries gather at the end that
-- is read first, so a scan that starts above them keeps a busy queue fast. What the mark hides
-- (late commits, retries, other priorities) is found by the next full scan.
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.queue_name = {>queue}
    and job.status = 'todo' and job.hold is null
    and job.priority = %(priority)s::integer and job.id > {>low}{known}

-- fragment: of_several
-- chosen: the first jobs of all queues together, in order. It reads as many of each queue as may be
-- needed, which is the cheapest for a few jobs or queues. (`limit` is the worker's room. `scanned` is
-- more than that, because others may be claiming the first ones at this moment.)
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
-- share: the first jobs of each queue, a fair part of what is wanted. (Reading a share at first,
-- and the rest of few queues, took 5 ms for 500 jobs of 100 queues instead of 18. `limit` is the
-- worker's room. `scanned` is more than that, because others may be claiming the first ones at this
-- moment.)
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
            {>ready queue="scan.queue_name" low="scan.low"}
            order by job.priority desc, job.id
            limit %(scanned)s::integer
        ) as rest
    ) as found
    order by found.priority desc, found.id
    limit %(scanned)s::integer
)

-- fragment: unlocked_of_chosen
{>chosen ready=ready},
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
        from {schema}.procrastinate_jobs as job
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
)

-- fragment: unlocked_of_one
-- candidate: the first ready jobs of the queue, locked as they are read, which costs the least.
candidate as materialized (
    select job.id, job.lock
    {>ready queue="%(queue_name)s::text" low="%(low)s::bigint"}
    order by job.priority desc, job.id
    limit %(limit)s::integer
    for update skip locked
)

-- fragment: unlocked_of_one_wary
-- met: how many are ready among the first, and how many of them have a lock. (Jobs with locks were
-- met lately. To look first takes 80 microseconds, of 850 for 100 jobs, and avoids locks on rows
-- that this cannot claim.)
met as materialized (
    select pg_catalog.count(first.lock)::integer as aside, count(*)::integer as met
    from (
        select job.lock
        {>ready queue="%(queue_name)s::text" low="%(low)s::bigint"}
        order by job.priority desc, job.id
        limit %(limit)s::integer
    ) as first
),
-- candidate: the first ready jobs, if none of them has a lock.
candidate as materialized (
    select job.id
    {>ready queue="%(queue_name)s::text" low="%(low)s::bigint"}
        and job.lock is null
    order by job.priority desc, job.id
    limit (select case when met.aside = 0 then %(limit)s::integer else 0 end from met)
    for update skip locked
)

-- fragment: answer
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
from {>met}
order by priority desc, id

-- fragment: claim_unlocked
-- Returns one row (13 nulls, aside, met, moment_us), and then (job..., 3 nulls) for each claimed
-- job. `met` counts the ready jobs that it met, `aside` those of them that have a lock. Another
-- transaction has the others in hand that were not claimed. `moment_us` is the time of the claim,
-- in microseconds since the epoch. `crashes` is null for most jobs.
{>candidates chosen=chosen ready=ready},
-- claimed: the candidates, which the worker holds now.
claimed as (
    update {schema}.procrastinate_jobs as job
    set {>begun}
    where job.partition = %(partition)s::smallint and job.id = any(array({>ids}))
    returning {>claimed_columns}
)
{>answer met=met}

-- fragment: begin_admitted
-- claimed: the wanted jobs without a lock, and those that got theirs. The worker holds them now.
claimed as (
    update {schema}.procrastinate_jobs as job
    set {>begun}
    where job.partition = %(partition)s::smallint and job.id = any(array(
        select wanted.id from wanted where wanted.lock is null
        union all
        select acquired.job_id from acquired
    ))
    returning {>claimed_columns}
)

-- fragment: met_by_candidates
(
    select pg_catalog.count(candidate.lock)::integer as aside, count(*)::integer as met
    from candidate
) as met

-- fragment: met_with_locks
(
    select
        (select count(*) from parked)::integer as aside,
        ((select count(*) from chosen) + (select count(*) from elsewhere))::integer as met
) as met

-- fragment: claim
-- Returns one row (13 nulls, aside, met, moment_us), and then (job..., 3 nulls) for each claimed
-- job. `met` counts the ready jobs that it met, `aside` those of them that it parked. The others
-- that were not claimed stay as they are: another transaction was just deciding about them or their
-- line, or there was no room. `moment_us` is the time of the claim, in microseconds since the epoch.
--
-- The jobs of one lock are its line, in order of (priority desc, id). A row of procrastinate_locks is
-- the slot of a lock, and the job in it holds the lock. The first of the line, the head, may take a
-- free slot. Jobs that may not start are parked (hold = 'lock'): no claim reads them until a release
-- of the lock makes the next ones ready.
{>chosen ready=ready},
{>heads},
-- elsewhere: the ready heads in the scanned queues that the scan did not come to.
elsewhere as materialized (
    select head.id, head.priority, head.lock
    from head
    where head.id in (
        {>ready_heads_elsewhere}
    )
),
-- wanted: what may start, up to the limit, locked in order. (What was scanned beyond the limit is
-- only there to be parked. For num_nulls: the index of ready jobs must not be used to look for
-- ids.)
wanted as materialized (
    select got.id, startable.lock
    from (
        {>startable}
        order by priority desc, id
    ) as startable
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.id = startable.id
            and job.status = 'todo' and pg_catalog.num_nulls(job.hold) = 1{known}
            and job.lock is not distinct from startable.lock
            and job.queue_name = any(%(queue_names)s::text[])
        for update skip locked
    ) as got
    limit %(limit)s::integer
),
{>admit},
-- blocked: the chosen jobs that may not start yet, locked.
blocked as materialized (
    select got.id
    from chosen
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.id = chosen.id
            and job.status = 'todo' and pg_catalog.num_nulls(job.hold) = 1
            and job.lock = chosen.lock
        for update skip locked
    ) as got
    where {>is_blocked}
),
{>park},
{>begin_admitted}
{>answer met=met_with_locks}

-- fragment: claim_of_one
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
-- chosen: the first ready jobs of the queue, in order, locked as they are read. The claim starts or
-- parks each of them, with three exceptions, which stay ready: a release has the lock in hand, another
-- queue has the head of the line, or heads from elsewhere have taken the room.
chosen as materialized (
    select job.id, job.priority, job.lock
    {>ready queue="%(queue_name)s::text" low="%(low)s::bigint"}
    order by job.priority desc, job.id
    limit %(limit)s::integer
    for update skip locked
),
{>heads},
-- elsewhere: the ready heads in the scanned queue that the scan did not come to. Their rows are
-- locked, too. (num_nulls asks whether the hold is null in a way that the index of ready jobs does
-- not answer: a plan that looked for ids in that index read all of it.)
elsewhere as materialized (
    select job.id, job.priority, job.lock
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo'
        and pg_catalog.num_nulls(job.hold) = 1
        and job.id = any(array(
            {>ready_heads_elsewhere}
        )){known}
    for update skip locked
),
-- wanted: what may start, up to the limit.
wanted as materialized (
    select startable.id, startable.lock
    from (
        {>startable}
    ) as startable
    order by startable.priority desc, startable.id
    limit %(limit)s::integer
),
{>admit},
-- blocked: the chosen jobs that may not start yet.
blocked as materialized (
    select chosen.id
    from chosen
    where {>is_blocked}
),
{>park},
{>begin_admitted}
{>answer met=met_with_locks}

-- name: claim_unlocked_full_of_one :many
-- settings: asynchronous, prepared
-- Takes jobs without a lock, in a full scan of one queue.
with {>claim_unlocked candidates=unlocked_of_one ready=ready_full
    ids="select candidate.id from candidate where candidate.lock is null"
    met=met_by_candidates}

-- name: claim_unlocked_level_of_one :many
-- settings: asynchronous, prepared
-- Takes jobs without a lock, of one level of one queue.
with {>claim_unlocked candidates=unlocked_of_one ready=ready_level
    ids="select candidate.id from candidate where candidate.lock is null"
    met=met_by_candidates}

-- name: claim_unlocked_full_of_one_wary :many
-- settings: asynchronous, prepared
-- Takes jobs without a lock, in a full scan of one queue where locks were met.
with {>claim_unlocked candidates=unlocked_of_one_wary ready=ready_full
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_level_of_one_wary :many
-- settings: asynchronous, prepared
-- Takes jobs without a lock, of one level of one queue where locks were met.
with {>claim_unlocked candidates=unlocked_of_one_wary ready=ready_level
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_full_of_several :many
-- settings: asynchronous
-- Takes jobs without a lock, in a full scan of a few queues.
with {>claim_unlocked candidates=unlocked_of_chosen chosen=of_several ready=ready_full
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_level_of_several :many
-- settings: asynchronous
-- Takes jobs without a lock, of one level of a few queues.
with {>claim_unlocked candidates=unlocked_of_chosen chosen=of_several ready=ready_level
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_full_of_many :many
-- settings: asynchronous
-- Takes jobs without a lock, in a full scan of many queues.
with {>claim_unlocked candidates=unlocked_of_chosen chosen=of_many ready=ready_full
    ids="select candidate.id from candidate" met="met"}

-- name: claim_unlocked_level_of_many :many
-- settings: asynchronous
-- Takes jobs without a lock, of one level of many queues.
with {>claim_unlocked candidates=unlocked_of_chosen chosen=of_many ready=ready_level
    ids="select candidate.id from candidate" met="met"}

-- name: claim_full_of_one :many
-- settings: asynchronous, prepared
-- Takes jobs with and without a lock, in a full scan of one queue.
with {>claim_of_one ready=ready_full}

-- name: claim_level_of_one :many
-- settings: asynchronous, prepared
-- Takes jobs with and without a lock, of one level of one queue.
with {>claim_of_one ready=ready_level}

-- name: claim_full_of_several :many
-- settings: asynchronous
-- Takes jobs with and without a lock, in a full scan of a few queues.
with {>claim chosen=of_several ready=ready_full}

-- name: claim_level_of_several :many
-- settings: asynchronous
-- Takes jobs with and without a lock, of one level of a few queues.
with {>claim chosen=of_several ready=ready_level}

-- name: claim_full_of_many :many
-- settings: asynchronous
-- Takes jobs with and without a lock, in a full scan of many queues.
with {>claim chosen=of_many ready=ready_full}

-- name: claim_level_of_many :many
-- settings: asynchronous
-- Takes jobs with and without a lock, of one level of many queues.
with {>claim chosen=of_many ready=ready_level}

-- fragment: make_slots
insert into {schema}.procrastinate_locks as held (lock, partition, job_id)
select distinct found.lock, found.partition, null::bigint
from unnest(%(queue_names)s::text[], %(lows)s::bigint[]) as scan(queue_name, low)
cross join lateral (
    select job.lock, job.partition
    {>ready queue="scan.queue_name" low="scan.low"}
    order by job.priority desc, job.id
    limit %(scanned)s::integer
) as found
where found.lock is not null and not exists (
    select from {schema}.procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.lock = found.lock
)
order by found.lock
on conflict do nothing

-- name: make_slots_full :exec
-- settings: asynchronous, prepared
-- Makes the slots that are missing of the locks which a full scan is about to meet: free ones,
-- without a job. Only a distributed database needs this, in front of each claim with locks: a claim that
-- inserts and goes on would not stay on one node, so there it only takes slots that exist.
{>make_slots ready=ready_full}

-- name: make_slots_level :exec
-- settings: asynchronous, prepared
-- The same as make_slots_full, for a scan of one level.
{>make_slots ready=ready_level}

-- name: any_ready :one
-- settings: prepared
-- Returns whether a job is ready, after a claim that saw none: another transaction was just
-- deciding about it. (Each claim would be planned for 0.2 ms longer if it answered this itself.) In
-- order, so that no plan reads the whole table in search of any job.
select exists (
    select
    from pg_catalog.unnest(%(queue_names)s::text[]) as scanned(queue_name)
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.queue_name = scanned.queue_name
            and job.status = 'todo' and job.hold is null{known}
        order by job.priority desc, job.id
        limit 1
    ) as locked_by_another
)::integer

-- name: promote_due :one
-- Makes scheduled jobs ready whose time has come, and wakes the workers of their queues. Returns
-- (how many, microseconds until the next one or null, how many queues have been woken).
--
-- due: the jobs whose time has come, up to the limit.
with due as materialized (
    select job.id
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'schedule'
        and job.scheduled_at <= statement_timestamp()
        -- What an index cannot hold stays where it is: it would keep all others from being promoted.
        -- (The table's checks allow no such row.)
        and char_length(job.queue_name) <= 128
        and (job.lock is null or char_length(job.lock) <= 512)
    order by job.scheduled_at
    limit %(limit)s::integer
    for update skip locked
),
-- promoted: the same, ready now.
promoted as (
    update {schema}.procrastinate_jobs as job
    set hold = null
    where job.partition = %(partition)s::smallint and job.id = any(array(select due.id from due))
    returning job.queue_name
){>tell_promoted}

-- fragment: tell_promoted
,
-- woken: one notification for each queue in which a job is ready.
woken as materialized (
    select pg_catalog.pg_notify('procrastinate_jobs', promoted.queue_name)
    from promoted
    group by promoted.queue_name
)
{>promotion},
    (select count(*) from woken)::integer

-- distributed fragment: tell_promoted
,
-- news: each queue in which a job is ready; one row at least.
news as materialized (
    select promoted.queue_name
    from (select 1) as one
    left join promoted on true
    group by promoted.queue_name
)
{>promotion},
    0,
    case when news.queue_name is not null then 'procrastinate_jobs' end as channel,
    news.{>at_partition} as payload
from news

-- fragment: promotion
-- How many, and the microseconds until the next one.
select
    (select count(*) from promoted)::integer,
    (
        select (
            extract(
                epoch from least(job.scheduled_at, '9999-12-29 00:00+00')
                    - statement_timestamp()
            ) * 1000000.0
        )::bigint
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold = 'schedule'
            and job.scheduled_at > statement_timestamp()
        order by job.scheduled_at
        limit 1
    )

-- name: sweep :many
-- settings: one_connection
-- Looks at all partitions for jobs that nobody announced. Returns (partition, how many jobs are
-- ready in these queues (null: in all), how many in others, microseconds until the next scheduled
-- one is due or null, the queue of the former if they are all of one) for each partition that has any.
select
    found.partition, sum(found.ready)::bigint, sum(found.elsewhere)::bigint,
    min(found.due_us)::bigint,
    case when min(found.lowest) = max(found.highest) then min(found.lowest) end
from (
    select
        job.partition, count(*) filter (where {>is_served}) as ready,
        count(*) filter (where not ({>is_served})) as elsewhere, null::bigint as due_us,
        min(job.queue_name) filter (where {>is_served}) as lowest,
        max(job.queue_name) filter (where {>is_served}) as highest
    from {schema}.procrastinate_jobs as job
    where {>anywhere} and job.status = 'todo' and job.hold is null{unpaused job}
    group by job.partition
    union all
    select
        job.partition, 0, 0, (
            extract(
                epoch from least(min(job.scheduled_at), '9999-12-29 00:00+00')
                    - statement_timestamp()
            ) * 1000000.0
        )::bigint, null::text, null::text
    from {schema}.procrastinate_jobs as job
    where {>anywhere} and job.status = 'todo' and job.hold = 'schedule'
    group by job.partition
) as found
group by found.partition

-- fragment: is_served
(%(queue_names)s::text[] is null or job.queue_name = any(%(queue_names)s::text[])){known}
