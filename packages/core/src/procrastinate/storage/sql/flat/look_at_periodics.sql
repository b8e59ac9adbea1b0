-- name: look_at_periodics :many
-- Enters the schedules that are new, which start now, and notes once a day which ones are still in
-- use. If the clock was set back by more than 3 hours it starts again from now; after less it
-- waits, so that no tick comes twice. Returns (done_until, the server's time) for each, in the
-- order given. done_until is null if another transaction has just entered the schedule: look again.
--
-- mine: the schedules, in the order given.
with mine as materialized (
    select mine.task_name, mine.periodic_id, mine.place
    from unnest(%(task_names)s::text[], %(periodic_ids)s::text[])
        with ordinality as mine(task_name, periodic_id, place)
),
-- added: those of them that were new.
added as (
    insert into procrastinate_periodic as periodic
        (task_name, periodic_id, partition, done_until, seen_at)
    select mine.task_name, mine.periodic_id, 0, statement_timestamp(), statement_timestamp()
    from mine
    where not exists (
        select from procrastinate_periodic as known
        where known.task_name = mine.task_name and known.periodic_id = mine.periodic_id
            and known.partition = 0
    )
    order by mine.task_name, mine.periodic_id
    on conflict (task_name, periodic_id, partition) do nothing
    returning periodic.task_name, periodic.periodic_id, periodic.done_until
),
-- stale: those of them that were not seen for a day, or were settled by a clock that has been set
-- back, locked; with the times that they get. (Read here, because a distributed database calls no
-- function that depends on the time in a CASE of an UPDATE.)
stale as materialized (
    select
        periodic.task_name, periodic.periodic_id, statement_timestamp() as seen_at,
        case
            when periodic.done_until > statement_timestamp() + interval '3 hours'
                then statement_timestamp()
            else periodic.done_until
        end as done_until
    from mine
    join procrastinate_periodic as periodic
        on periodic.task_name = mine.task_name and periodic.periodic_id = mine.periodic_id
            and periodic.partition = 0
    where periodic.seen_at < statement_timestamp() - interval '1 day'
        or periodic.seen_at > statement_timestamp() + interval '3 hours'
        or periodic.done_until > statement_timestamp() + interval '3 hours'
    for update of periodic skip locked
),
-- noted: the same, as they are now.
noted as (
    update procrastinate_periodic as periodic
    set seen_at = stale.seen_at, done_until = stale.done_until
    from stale
    where periodic.task_name = stale.task_name and periodic.periodic_id = stale.periodic_id
        and periodic.partition = 0
    returning periodic.task_name, periodic.periodic_id, periodic.done_until
)
select
    coalesce(added.done_until, noted.done_until, periodic.done_until),
    statement_timestamp()
from mine
left join added
    on added.task_name = mine.task_name and added.periodic_id = mine.periodic_id
left join noted
    on noted.task_name = mine.task_name and noted.periodic_id = mine.periodic_id
left join procrastinate_periodic as periodic
    on periodic.task_name = mine.task_name and periodic.periodic_id = mine.periodic_id
        and periodic.partition = 0
order by mine.place
