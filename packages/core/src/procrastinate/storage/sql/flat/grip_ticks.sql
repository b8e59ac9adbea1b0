-- name: grip_ticks :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
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
)
select
    coalesce(due.tick > held.done_until and due.tick <= statement_timestamp(), false),
    periodic.done_until,
    statement_timestamp(),
    -- True if a pause covers the queue.
    (exists (
        select from procrastinate_queues as pause
        -- True of a pause that has not ended by itself.
        where pause.partition = 0 and (pause.paused_until is null or pause.paused_until > statement_timestamp())
            and (pause.queue_name = due.queue_name or (pause.queue_name = '*' and due.queue_name <> 'builtin'))
    ))::integer,
    held.job_id
from due
left join held on held.task_name = due.task_name and held.periodic_id = due.periodic_id
left join procrastinate_periodic as periodic
    on periodic.task_name = due.task_name and periodic.periodic_id = due.periodic_id
        and periodic.partition = 0
order by due.place
