-- Locks. A lock is a gate with one slot, and its jobs stand in a line before it: in order of
-- (priority desc, id), through all queues. A row of procrastinate_locks is a slot that a job holds.
--
-- * admit: a claim asks for the first job of each line that it meets. If the slot is free, the job
--   takes it.
-- * park: a job that may not pass yet gets hold = 'lock', so that the next claim does not read it
--   again.
-- * hand over: a job that has ended gives its slot to the next one, which the same worker begins.
-- * release: a job that has ended passes on and gives its slot up.
-- * pass on: the best parked job of each queue becomes ready. The next claim chooses among them.
-- * mend: a line that no job holds up, but whose best job is parked, is passed on. Changes by hand
--   leave such lines.
--
-- Jobs of paused queues stand in the line, but are never its first: claims and hand-overs go to the
-- next job behind them. To pass on makes the best job of *each* queue ready, so the line never waits
-- for a paused one, and after the end of the pause its job is ready, in its place.
--
-- A gate with n slots differs in three places: `head` takes as many jobs of a line as there are
-- free slots, `acquired` as many slots, and passing on makes as many jobs of each queue ready.
--
-- No deadlock: every statement takes slots and locks waiting jobs in one order, by lock and queue,
-- and a transaction gives a slot up as the last thing that it does.

-- fragment: heads
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
        {>first_of_line among="(%(served)s::text[] is null or best.queue_name = any(%(served)s::text[]))"}
    ) as first
    where not exists (
        select from {schema}.procrastinate_locks as held
        where held.lock = contended.lock and {>is_taken}
    )
)

-- fragment: first_of_line
-- The first job of a line, ready or parked. Jobs of paused queues do not hold up the others: they
-- keep their places, and are passed on like all.
with recursive ready as (
    {>best_in_each_queue before="ready" those="job.hold is null"}
),
parking as (
    {>best_in_each_queue before="parking" those="job.hold = 'lock'"}
)
select best.id, best.priority, best.queue_name, best.is_ready
from (
    select ready.*, true as is_ready from ready
    union all
    select parking.*, false from parking
) as best
where {>among}{unpaused best}
order by best.priority desc, best.id
limit 1

-- fragment: of_lock
-- True of the jobs in the line of a lock. (A plain server has one partition, which need not be named.)
job.lock = {>lock} and {>by_line_index}

-- distributed fragment: of_lock
job.partition = %(partition)s::smallint and job.lock = {>lock} and {>by_line_index}

-- fragment: by_line_index
-- The condition with to_tsvector is true of every job with a lock. It is only there to make the planner
-- take the index of lines: that index's own condition implies it, so with that index it costs nothing,
-- and with any other, to_tsvector looks dear. (The planner expects a single row of each index that was
-- never analyzed, and read all ready jobs for each lock. A claim of 500 jobs of 20,000 took 700 ms
-- instead of 9.)
(job.lock is not null
    or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)

-- fragment: is_taken
-- True of a slot that a job holds: a slot without one has no row.
held.partition = %(partition)s::smallint

-- distributed fragment: is_taken
held.partition = %(partition)s::smallint and held.job_id is not null

-- fragment: best_in_each_queue
-- The best job of the line in each queue, from queue to queue, by one index probe for each.
-- (Ordered by the hold as well, because the planner does not see that it is the same everywhere. And
-- `distinct from 'schedule'` is in the condition of the index: without it, the planner cannot use that.)
(
    select job.id, job.priority, job.queue_name
    from {schema}.procrastinate_jobs as job
    where {>of_lock lock="contended.lock"}
        and job.status = 'todo'
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
    where {>of_lock lock="contended.lock"}
        and job.queue_name > before.queue_name and job.status = 'todo'
        and job.hold is distinct from 'schedule' and {>those}
    order by job.hold, job.queue_name, job.priority desc, job.id
    limit 1
) as following

-- fragment: ready_heads_elsewhere
-- (The next job of a released lock may stand where the scan does not look: of another priority, or with
-- a smaller id than it begins at.)
select head.id
from head
where head.is_ready and head.queue_name = any(%(queue_names)s::text[])
    and head.id not in (select chosen.id from chosen)

-- fragment: startable
-- Chosen jobs without a lock, chosen heads, and the heads elsewhere. (A head that does not get its
-- lock stays ready, for the next claim that meets its line or scans it.)
select chosen.id, chosen.priority, chosen.lock
from chosen
where chosen.lock is null or chosen.id in (select head.id from head)
union all
select elsewhere.id, elsewhere.priority, elsewhere.lock
from elsewhere

-- fragment: acquire
-- acquired: the slots that wanted jobs took. Another claim may have been first; a conflict waits
-- for it.
acquired as (
    insert into {schema}.procrastinate_locks as held (lock, partition, job_id)
    select wanted.lock, %(partition)s::smallint, wanted.id
    from wanted
    where wanted.lock is not null
    order by wanted.lock
    on conflict do nothing
    returning held.lock, held.job_id
)

-- distributed fragment: acquire
-- free: the slots of wanted jobs that no job holds, locked: another claim may have them in hand. (They
-- exist: `make_slots_...` is sent before this, because no insert inside a statement stays on one node.)
free as materialized (
    select held.lock
    from {schema}.procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.job_id is null
        and held.lock = any(array(select wanted.lock from wanted where wanted.lock is not null))
    order by held.lock
    for update
),
-- acquired: the slots that wanted jobs took.
acquired as (
    update {schema}.procrastinate_locks as held
    set job_id = wanted.id
    from wanted
    where held.partition = %(partition)s::smallint and held.lock = wanted.lock
        and held.lock in (select free.lock from free)
    returning held.lock, held.job_id
)

-- fragment: admit
{>acquire},
-- holder: the locks of chosen jobs that are held, and stay so until this claim commits: a release
-- waits for it, and then sees what it has parked. If a release came first, the lock is left out:
-- its jobs are not parked, but stay ready and undecided. (The count makes this come after `acquired`,
-- which may have waited for another claim.)
holder as materialized (
    select held.lock
    from {schema}.procrastinate_locks as held
    where {>is_taken}
        and held.lock = any(array(select chosen.lock from chosen where lock is not null))
        and (select count(*) from acquired) >= 0
    order by held.lock
    for key share skip locked
)

-- fragment: is_blocked
-- A job is blocked if another one holds its lock and cannot release it now (`holder`), or has just
-- taken it in this claim (`acquired`).
chosen.lock is not null
    and chosen.id not in (select acquired.job_id from acquired)
    and (
        chosen.lock in (select holder.lock from holder)
        or chosen.lock in (select acquired.lock from acquired)
    )

-- fragment: park
-- parked: the blocked jobs, which no claim reads again before they are passed on.
parked as (
    update {schema}.procrastinate_jobs as job
    set hold = 'lock'
    where job.partition = %(partition)s::smallint and job.id = any(array(select blocked.id from blocked))
    returning job.id
)

-- name: hand_over :many
-- settings: patience, prepared
-- Writes that jobs have succeeded, and lets the first job of each one's line begin in its place, for
-- the same worker. A job stays as it is if its line has no such job, or none that may be taken now.
-- Returns (id, 12 nulls, awaited, moment_us) for each job that has ended, and then (job..., 2 nulls)
-- for each that begins. `moment_us` is the time of both, in microseconds since the epoch; `awaited` is
-- 1 if anybody may wait for one of the ended ones, else null.
--
-- One statement is enough, because no slot is given up. A job that a claim parks meanwhile stands
-- behind the job that has the slot now.
{>handing_over arrays="" names="" columns="" set=""}

-- name: hand_over_with_results :many
-- settings: patience, prepared, array_nulls
-- The same as hand_over, and keeps what tasks returned, or why that is not kept.
{>handing_over
    arrays=result_arrays names=result_names columns=result_columns set=set_what_it_returned}

-- fragment: handing_over
-- leaving: those of the jobs that this worker holds, locked.
with leaving as materialized (
    {>those_it_holds arrays=arrays names=names columns=columns}
),
-- slot: the slots that these jobs hold, locked.
slot as materialized (
    select held.lock, held.job_id
    from {schema}.procrastinate_locks as held
    where held.partition = %(partition)s::smallint
        and held.job_id = any(array(select leaving.id from leaving))
    order by held.lock
    for update
),
-- head: the first job of each slot's line, if its queue is served. If it is another worker's to take,
-- the line must not go on without it: a worker that has always a next job would keep the line for ever.
head as materialized (
    select first.id, first.priority, first.queue_name, contended.lock, contended.job_id
    from slot as contended
    cross join lateral (
        {>first_of_line among="true"}
    ) as first
    where %(served)s::text[] is null or first.queue_name = any(%(served)s::text[])
),
-- next: the heads that begin now, locked in order, and the jobs in whose place they do. (The texts
-- of status and hold: no partial index must be used to look for ids.)
next as materialized (
    select got.id, head.lock, head.job_id
    from (
        select head.id, head.priority, head.queue_name, head.lock, head.job_id
        from head
        order by head.priority desc, head.id
    ) as head
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.id = head.id
            and job.status::text = 'todo' and job.hold::text is distinct from 'schedule'{known}
            and job.lock = head.lock and job.queue_name = head.queue_name
            and job.priority = head.priority
        for update skip locked
    ) as got
    limit %(limit)s::integer
),
-- finished: the jobs whose slots go to others.
finished as (
    update {schema}.procrastinate_jobs as job
    {>have_succeeded set=set}
    returning job.id
),
-- handed: the same slots, which the next jobs hold now.
handed as (
    update {schema}.procrastinate_locks as held
    {>to_the_next}
),
-- claimed: the next jobs, which the worker holds now.
claimed as (
    update {schema}.procrastinate_jobs as job
    set hold = null,
        {>begun}
    where job.partition = %(partition)s::smallint
        and job.id = any(array(select next.id from next))
    returning {>claimed_columns}
)
select claimed.*, null::integer as awaited, null::bigint as moment_us
from claimed
union all
select
    finished.id, null, null, null, null, null, null, null, null, null, null, null, null,
    {>awaited}, (extract(epoch from statement_timestamp()) * 1000000.0)::bigint
from finished
order by priority desc, id

-- fragment: those_it_holds
-- What is said of each is read by its place in the lists. (By joins, here and in `handed`, each was
-- compared with each if the planner had never seen many jobs: a quarter of the statement. To look for
-- one job at a time instead took 2 % of it for ten jobs, and 7 % for 64.)
select job.id, job.lock
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[]) and {>is_held}
    and job.lease = {>said list="%(leases)s::integer[]"}
order by job.id
for update

-- distributed fragment: those_it_holds
-- (One by one: if the planner had never seen many jobs, it compared each of 50 with each.)
select
    held.id, held.lock,
    statement_timestamp() - said.began_us::float8 * interval '1 microsecond' as began,
    statement_timestamp() - said.ended_us::float8 * interval '1 microsecond' as ended{>columns of="said"}
{>patiently from="from"} unnest(
    %(ids)s::bigint[], %(leases)s::integer[], %(began_us)s::bigint[], %(ended_us)s::bigint[]{>arrays}
) as said(id, lease, began_us, ended_us{>names})
cross join lateral (
    select job.id, job.lock
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = said.id and {>is_held}
        and job.lease = said.lease
    for update
) as held

-- fragment: said
({>list})[
    pg_catalog.array_position(%(ids)s::bigint[], job.id)
]

-- fragment: ago
statement_timestamp() - {>said list=list}::float8 * interval '1 microsecond'

-- fragment: have_succeeded
set status = 'succeeded',
    started_at = {>ago list="%(began_us)s::bigint[]"},
    finished_at = {>ago list="%(ended_us)s::bigint[]"}{>set}
where job.partition = %(partition)s::smallint
    and job.id = any(array(select next.job_id from next))

-- distributed fragment: have_succeeded
set status = 'succeeded', started_at = leaving.began, finished_at = leaving.ended{>set}
from leaving
where job.partition = %(partition)s::smallint and job.id = leaving.id
    and job.id = any(array(select next.job_id from next))

-- fragment: to_the_next
set job_id = (array(select next.id from next))[
    pg_catalog.array_position(array(select next.job_id from next), held.job_id)
]
where held.partition = %(partition)s::smallint
    and held.lock = any(array(select next.lock from next))

-- distributed fragment: to_the_next
set job_id = next.id
from next
where held.partition = %(partition)s::smallint and held.lock = next.lock

-- fragment: set_what_it_returned
-- (The results are divided once: in a plan for all values, a function is called for each row.)
, result = {>said list="select string_to_array(%(results)s::text, chr(30), ''::text)"}::jsonb,
    result_error = {>said list="%(result_errors)s::text[]"}

-- distributed fragment: set_what_it_returned
, result = leaving.result, result_error = leaving.result_error

-- name: grip_locks :many
-- settings: prepared
-- Returns the locks that these jobs hold, which run no longer, and keeps claims from parking jobs
-- behind them. Must be followed, in the same transaction, by release_locks. That is a statement of
-- its own, so that it sees the jobs that a claim parked while this one waited for it.
select held.lock
from {schema}.procrastinate_locks as held
where held.partition = %(partition)s::smallint and held.job_id = any(%(ids)s::bigint[])
order by held.lock
for update

-- fragment: pass_on
-- line: each queue that has parked jobs of these locks, from queue to queue, by one index probe for
-- each.
line(lock, queue_name) as (
    select
        released.lock,
        (
            select job.queue_name
            from {schema}.procrastinate_jobs as job
            where {>of_lock lock="released.lock"}
                and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
            order by job.queue_name
            limit 1
        )
    -- The planner takes an array that it cannot count to be short. For each of 500 locks that it
    -- counted it expected a hundred queues, and had the statement compiled.
    from pg_catalog.unnest(array(select pg_catalog.unnest(%(locks)s::text[]))) as released(lock)
    union all
    select
        line.lock,
        (
            select job.queue_name
            from {schema}.procrastinate_jobs as job
            where {>of_lock lock="line.lock"}
                and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.queue_name > line.queue_name
            order by job.queue_name
            limit 1
        )
    from line
    where line.queue_name is not null
),
-- next: the best parked job of each of these queues, locked in the order in which every statement
-- locks jobs that wait.
next as materialized (
    select best.id
    from (
        select line.lock, line.queue_name
        from line
        where line.queue_name is not null
        order by line.lock, line.queue_name
    ) as parking
    cross join lateral (
        select job.id
        from {schema}.procrastinate_jobs as job
        where {>of_lock lock="parking.lock"}
            and job.queue_name = parking.queue_name and job.status = 'todo'
            and job.hold is distinct from 'schedule' and job.hold = 'lock'
        order by job.priority desc, job.id
        limit 1
        for update{>busy}
    ) as best
),
-- passed: the same jobs, ready now.
passed as (
    update {schema}.procrastinate_jobs as job
    set hold = null
    where job.partition = %(partition)s::smallint and job.id = any(array(select next.id from next))
    returning job.queue_name
)

-- fragment: tell_passed
pg_catalog.pg_notify('procrastinate_jobs', passed.queue_name)::text

-- distributed fragment: tell_passed
-- Workers listen on the coordinator, so a node cannot wake them. It returns whom to wake, and with what.
null::text, 'procrastinate_jobs' as channel, passed.{>at_partition} as payload

-- name: release_locks :many
-- settings: prepared
-- Makes the best parked job of each queue in each lock's line ready, gives the locks up, and wakes
-- the workers of these queues. Returns (queue, empty text). A transaction may have a parked job
-- in hand, to change it: this waits for it, and then takes that job or the next one.
with recursive {>pass_on busy=""},
-- given_up: last (hence the count), because claims wait for this.
given_up as (
    delete from {schema}.procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.lock = any(%(locks)s::text[])
        and (select count(*) from passed) >= 0
)
select passed.queue_name, {>tell_passed}
from passed
group by passed.queue_name

-- name: pass_on_locks :many
-- The same as release_locks, for locks that may be free already, after a change by hand: it gives up
-- none. It passes over jobs that another transaction has in hand: it holds some itself, so it may not
-- wait. The other transaction passes on in its turn. If that rolls back, or was a claim with an old
-- snapshot, the line is left for idle_lines.
with recursive {>pass_on busy=" skip locked"}
select passed.queue_name, {>tell_passed}
from passed
group by passed.queue_name

-- fragment: best_in_queue
-- The best ready job of the line in one queue and the best parked one, each at the end of an index.
-- (Its order begins with the hold, also where that is null.)
(
    select job.id, job.priority, job.hold
    from {schema}.procrastinate_jobs as job
    where {>of_lock lock="line.lock"}
        and job.queue_name = line.queue_name and job.status = 'todo'
        and job.hold is distinct from 'schedule' and job.hold is null
    order by job.hold, job.priority desc, job.id
    limit 1
)
union all
(
    select job.id, job.priority, job.hold
    from {schema}.procrastinate_jobs as job
    where {>of_lock lock="line.lock"}
        and job.queue_name = line.queue_name and job.status = 'todo'
        and job.hold is distinct from 'schedule' and job.hold = 'lock'
    order by job.priority desc, job.id
    limit 1
)

-- name: parked_partitions :many
-- settings: one_connection
-- Returns the partitions that have parked jobs: where idle_lines may find something.
{>where_parked}

-- fragment: where_parked
select %(partition)s::smallint
where exists (
    select from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and {>is_parked}
)

-- distributed fragment: where_parked
select distinct job.partition
from {schema}.procrastinate_jobs as job
where {>anywhere} and {>is_parked}

-- fragment: is_parked
job.lock is not null and job.status = 'todo'
    and job.hold is distinct from 'schedule' and job.hold = 'lock'

-- name: idle_lines :many
-- Returns the locks that no running job holds although the best job of a queue in their line is
-- parked: the trace of changes by hand. (Behind a ready job, others may be parked.)
--
-- parking: each lock and queue with parked jobs, from one to the next by an index probe.
with recursive parking(lock, queue_name) as (
    (
        select job.lock, job.queue_name
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.lock is not null and job.status = 'todo'
            and job.hold is distinct from 'schedule' and job.hold = 'lock'
        order by job.lock, job.queue_name
        limit 1
    )
    union all
    select following.lock, following.queue_name
    from parking
    cross join lateral (
        select job.lock, job.queue_name
        from {schema}.procrastinate_jobs as job
        where job.partition = %(partition)s::smallint
            and (job.lock, job.queue_name) > (parking.lock, parking.queue_name)
            and job.lock is not null and job.status = 'todo'
            and job.hold is distinct from 'schedule' and job.hold = 'lock'
        order by job.lock, job.queue_name
        limit 1
    ) as following
)
select distinct line.lock
from parking as line
cross join lateral (
    select first.hold
    from (
        {>best_in_queue}
    ) as first
    order by first.priority desc, first.id
    limit 1
) as best
where best.hold = 'lock'
    and not exists (
        select
        from {schema}.procrastinate_locks as held
        join {schema}.procrastinate_jobs as job
            on job.id = held.job_id and job.partition = %(partition)s::smallint and job.status::text = 'doing'
        where held.lock = line.lock and held.partition = %(partition)s::smallint
    )

-- name: drop_stale_locks :exec
-- Gives up those of these locks whose holder is not running, in order of the lock, as all others
-- do.
with stale as materialized (
    select held.lock
    from {schema}.procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.lock = any(%(locks)s::text[])
        and not exists (
            select from {schema}.procrastinate_jobs as job
            where job.id = held.job_id and job.partition = %(partition)s::smallint and job.status::text = 'doing'
        )
    order by held.lock
    for update
)
delete from {schema}.procrastinate_locks as held
where held.partition = %(partition)s::smallint and held.lock = any(array(select stale.lock from stale))
