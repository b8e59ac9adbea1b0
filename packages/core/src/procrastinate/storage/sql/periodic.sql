-- Periodic tasks: which ticks of which schedules are settled.

-- fragment: mine
-- Schedules, and what they say of themselves to those who do not have the code.
unnest(
    %(task_names)s::text[], %(periodic_ids)s::text[], %(crons)s::text[], %(timezones)s::text[],
    %(queue_names)s::text[]
)

-- name: look_at_periodics :many
-- Returns (done_until, whether it is stale, the server's time) for each of these schedules, in the
-- order given. done_until is null if the schedule is new. It is stale if it was not noted for a
-- day, if what it says of itself has changed, or if it was settled by a clock that has been set back.
select
    periodic.done_until,
    coalesce(
        periodic.seen_at < statement_timestamp() - interval '1 day'
            or periodic.seen_at > statement_timestamp() + interval '3 hours'
            or periodic.done_until > statement_timestamp() + interval '3 hours'
            or (periodic.task_name is not null and (
                periodic.cron is distinct from mine.cron
                or periodic.timezone is distinct from mine.timezone
                or periodic.queue_name is distinct from mine.queue_name
            )),
        false
    ),
    statement_timestamp()
from {>mine} with ordinality
    as mine(task_name, periodic_id, cron, timezone, queue_name, place)
left join {schema}.procrastinate_periodic as periodic
    on periodic.task_name = mine.task_name and periodic.periodic_id = mine.periodic_id
        and periodic.partition = 0
order by mine.place

-- name: enter_periodics :exec
-- Enters those of these schedules that are new. They start now.
insert into {schema}.procrastinate_periodic as periodic
    (task_name, periodic_id, partition, done_until, seen_at, cron, timezone, queue_name)
select
    mine.task_name, mine.periodic_id, 0, statement_timestamp(), statement_timestamp(),
    mine.cron, mine.timezone, mine.queue_name
from {>mine} as mine(task_name, periodic_id, cron, timezone, queue_name)
order by mine.task_name, mine.periodic_id
on conflict (task_name, periodic_id, partition) do nothing

-- name: note_periodics :exec
-- Notes of these schedules, which are stale, that they are still in use, and what they are. If the clock was set back
-- by more than 3 hours, a schedule starts again from now. After less it waits, so that no tick
-- comes twice. A schedule that another transaction has in hand is left to that one.
update {schema}.procrastinate_periodic as periodic
set seen_at = stale.seen_at, done_until = stale.done_until, cron = stale.cron,
    timezone = stale.timezone, queue_name = stale.queue_name
from (
    -- stale: the schedules, locked, with the times that they get.
    select
        periodic.task_name, periodic.periodic_id, statement_timestamp() as seen_at,
        case
            when periodic.done_until > statement_timestamp() + interval '3 hours'
                then statement_timestamp()
            else periodic.done_until
        end as done_until,
        mine.cron, mine.timezone, mine.queue_name
    from {>mine} as mine(task_name, periodic_id, cron, timezone, queue_name)
    join {schema}.procrastinate_periodic as periodic
        on periodic.task_name = mine.task_name and periodic.periodic_id = mine.periodic_id
            and periodic.partition = 0
    for update of periodic skip locked
) as stale
where periodic.task_name = stale.task_name and periodic.periodic_id = stale.periodic_id
    and periodic.partition = 0

-- fragment: is_paused
-- True if a pause covers the queue.
exists (
    select from {schema}.procrastinate_queues as pause
    where pause.partition = 0 and {>in_force}
        and (pause.queue_name = {>queue} or (pause.queue_name = '*' and {>queue} <> 'builtin'))
)

-- fragment: schedules_held
-- held: the schedules with a tick that is not settled yet, locked. If this waits for another
-- worker's statement, it finds done_until as that one leaves it.
held as materialized (
    select periodic.task_name, periodic.periodic_id, periodic.done_until, periodic.job_id
    from (
        select due.task_name, due.periodic_id, max(due.tick) as tick
        from due
        where due.tick <= statement_timestamp()
        group by due.task_name, due.periodic_id
    ) as latest
    join {schema}.procrastinate_periodic as periodic
        on periodic.task_name = latest.task_name and periodic.periodic_id = latest.periodic_id
            and periodic.partition = 0
    where periodic.done_until < latest.tick
    order by periodic.task_name, periodic.periodic_id
    for update of periodic
)

-- name: defer_ticks :many
-- settings: array_nulls
-- Settles ticks that no worker has settled yet, inserts their jobs in the order of the ticks, and
-- wakes the workers once for each queue. A tick whose args are null asks for no job: it is given
-- up, with all before it. A job whose queueing lock is taken by a waiting one is left out, and its
-- tick is settled all the same. So it is if the queue is paused and a job of the schedule waits, or
-- comes with a later tick. A tick that lies ahead by the server's clock is not settled.
-- Returns (whether this statement settled it, the id of its job, done_until as it was before, the
-- server's time, queues woken, 1 if its job was left out because of a pause) for each, in the order
-- given. done_until is null if the schedule has no row any more.
--
-- due: the ticks, in the order given.
with due as materialized (
    select
        due.task_name, due.periodic_id, due.tick::timestamptz as tick, due.queue_name, due.priority,
        due.lock, due.queueing_lock, due.args::jsonb as args, due.place
    from unnest(
        %(task_names)s::text[], %(periodic_ids)s::text[], %(ticks)s::text[],
        %(queue_names)s::text[], %(priorities)s::integer[], %(locks)s::text[],
        %(queueing_locks)s::text[], %(args)s::text[]
    ) with ordinality as due(
        task_name, periodic_id, tick, queue_name, priority, lock, queueing_lock, args, place
    )
),
{>schedules_held},
-- claimed: the ticks to settle, with the ids of their jobs.
claimed as materialized (
    select
        case when fresh.args is not null and not fresh.is_left_out
            then pg_catalog.nextval('{schema}.procrastinate_jobs_id_seq') end as id,
        fresh.*
    from (
        select
            due.*,
            {>is_paused queue="due.queue_name"} and (
                due.tick < max(due.tick) filter (where due.args is not null)
                    over (partition by due.task_name, due.periodic_id)
                or exists (
                    select from {schema}.procrastinate_jobs as job
                    where job.partition = %(partition)s::smallint and job.id = held.job_id
                        and job.status::text = 'todo'
                )
            ) as is_left_out
        from due
        join held on held.task_name = due.task_name and held.periodic_id = due.periodic_id
        where due.tick > held.done_until and due.tick <= statement_timestamp()
        order by due.tick, due.place
    ) as fresh
),
-- inserted: their jobs, in the order of the queueing locks as other batches, so that none waits for
-- another in a circle.
inserted as (
    insert into {schema}.procrastinate_jobs as job
        (id, partition, queue_name, task_name, priority, lock, queueing_lock, args)
    select
        claimed.id, 0, claimed.queue_name, claimed.task_name, claimed.priority, claimed.lock,
        claimed.queueing_lock, claimed.args
    from claimed
    where claimed.id is not null
    order by claimed.queueing_lock collate "C", claimed.id
    on conflict (queueing_lock, partition)
        where queueing_lock is not null and status = 'todo' do nothing
    returning job.id, job.queue_name
),
-- told: the same ticks with the ids of the jobs that were inserted. (IN is hashed; a join on the
-- ids was a nested loop: 1.4 s for 1,000 ticks.)
told as materialized (
    select
        claimed.place, claimed.task_name, claimed.periodic_id, claimed.tick, claimed.is_left_out,
        case when claimed.id in (select inserted.id from inserted) then claimed.id end as job_id
    from claimed
),
-- settled: the schedules, which remember their last tick and its job.
settled as (
    update {schema}.procrastinate_periodic as periodic
    set done_until = latest.done_until,
        last_tick = coalesce(latest.last_tick, periodic.last_tick),
        job_id = coalesce(latest.job_id, periodic.job_id),
        seen_at = statement_timestamp()
    from (
        select
            told.task_name, told.periodic_id,
            max(told.tick) as done_until,
            max(told.tick) filter (where told.job_id is not null) as last_tick,
            max(told.job_id) as job_id
        from told
        group by told.task_name, told.periodic_id
    ) as latest
    where periodic.task_name = latest.task_name and periodic.periodic_id = latest.periodic_id
        and periodic.partition = 0
),
-- woken: one notification for each queue.
woken as materialized (
    select pg_catalog.pg_notify('procrastinate_jobs', inserted.queue_name)
    from inserted
    group by inserted.queue_name
)
select
    told.place is not null,
    told.job_id,
    periodic.done_until,
    statement_timestamp(),
    (select count(*) from woken)::integer,
    told.is_left_out::integer
from due
left join told on told.place = due.place
left join {schema}.procrastinate_periodic as periodic
    on periodic.task_name = due.task_name and periodic.periodic_id = due.periodic_id
        and periodic.partition = 0
order by due.place

-- name: grip_ticks :many
-- Takes these schedules in hand until the end of the transaction, for a flow that settles ticks on
-- a distributed database: there no statement can insert jobs and settle their ticks as well. (An
-- INSERT in a CTE would be taken apart.) Returns (whether no worker has settled the tick, done_until,
-- the server's time, whether the queue is paused, the schedule's last job) for each tick, in the
-- order given. done_until is null if the schedule has no row any more.
--
-- due: the ticks, in the order given.
with due as materialized (
    select due.task_name, due.periodic_id, due.tick::timestamptz as tick, due.queue_name, due.place
    from unnest(
        %(task_names)s::text[], %(periodic_ids)s::text[], %(ticks)s::text[], %(queue_names)s::text[]
    ) with ordinality as due(task_name, periodic_id, tick, queue_name, place)
),
{>schedules_held}
select
    coalesce(due.tick > held.done_until and due.tick <= statement_timestamp(), false),
    periodic.done_until,
    statement_timestamp(),
    ({>is_paused queue="due.queue_name"})::integer,
    held.job_id
from due
left join held on held.task_name = due.task_name and held.periodic_id = due.periodic_id
left join {schema}.procrastinate_periodic as periodic
    on periodic.task_name = due.task_name and periodic.periodic_id = due.periodic_id
        and periodic.partition = 0
order by due.place

-- name: settle_ticks :exec
-- settings: array_nulls
-- Lets the schedules of these ticks, which this transaction has in hand, remember their last tick
-- and its job. The id is null if no job was inserted for a tick. (The latest job need not have the
-- highest id: they come in another order than their ticks, and from many partitions.)
update {schema}.procrastinate_periodic as periodic
set done_until = latest.done_until,
    last_tick = coalesce(latest.last_tick, periodic.last_tick),
    job_id = coalesce(latest.job_id, periodic.job_id),
    seen_at = statement_timestamp()
from (
    select
        told.task_name, told.periodic_id,
        max(told.tick::timestamptz) as done_until,
        max(told.tick::timestamptz) filter (where told.job_id is not null) as last_tick,
        (array_agg(told.job_id order by told.tick::timestamptz desc)
            filter (where told.job_id is not null))[1] as job_id
    from unnest(
        %(task_names)s::text[], %(periodic_ids)s::text[], %(ticks)s::text[], %(job_ids)s::bigint[]
    ) as told(task_name, periodic_id, tick, job_id)
    group by told.task_name, told.periodic_id
) as latest
where periodic.task_name = latest.task_name and periodic.periodic_id = latest.periodic_id
    and periodic.partition = 0
