-- name: defer_ticks :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, array_nulls = on.
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
    join procrastinate_periodic as periodic
        on periodic.task_name = latest.task_name and periodic.periodic_id = latest.periodic_id
            and periodic.partition = 0
    where periodic.done_until < latest.tick
    order by periodic.task_name, periodic.periodic_id
    for update of periodic
),
-- claimed: the ticks to settle, with the ids of their jobs.
claimed as materialized (
    select
        case when fresh.args is not null and not fresh.is_left_out
            then pg_catalog.nextval('procrastinate_jobs_id_seq') end as id,
        fresh.*
    from (
        select
            due.*,
            -- True if a pause covers the queue.
            exists (
                select from procrastinate_queues as pause
                -- True of a pause that has not ended by itself.
                where pause.partition = 0 and (pause.paused_until is null or pause.paused_until > statement_timestamp())
                    and (pause.queue_name = due.queue_name or (pause.queue_name = '*' and due.queue_name <> 'builtin'))
            ) and (
                due.tick < max(due.tick) filter (where due.args is not null)
                    over (partition by due.task_name, due.periodic_id)
                or exists (
                    select from procrastinate_jobs as job
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
    insert into procrastinate_jobs as job
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
    update procrastinate_periodic as periodic
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
left join procrastinate_periodic as periodic
    on periodic.task_name = due.task_name and periodic.periodic_id = due.periodic_id
        and periodic.partition = 0
order by due.place
