-- name: defer_jobs :many
-- Inserts jobs, all or none, and wakes the workers once for each queue and channel. Their ids are
-- those given, or are drawn (null) in the order given; but the rows go in by queueing lock, so that
-- two batches with the same ones never wait for each other in a circle.
-- Returns (id, null) for each; or (null, queueing_lock) once when a queueing lock is taken by a
-- waiting job or stands twice in the batch: then nothing was inserted.
with new as materialized (
    select
        batch.queue_name, batch.task_name, batch.priority, batch.lock, batch.queueing_lock,
        batch.args::jsonb as args,
        coalesce(
            batch.scheduled_at::timestamptz,
            statement_timestamp() + batch.schedule_in_us * interval '1 microsecond'
        ) as scheduled_at,
        batch.place, batch.id
    from unnest(
        %(queue_names)s::text[], %(task_names)s::text[], %(priorities)s::integer[],
        %(locks)s::text[], %(queueing_locks)s::text[], %(args)s::text[],
        %(scheduled_ats)s::text[], %(schedule_in_us)s::bigint[], %(ids)s::bigint[]
    ) with ordinality as batch(
        queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at, schedule_in_us,
        id, place
    )
),
clash as materialized (
    select new.queueing_lock
    from new
    where new.queueing_lock is not null
        and exists (
            select from procrastinate_jobs as twin
            where twin.queueing_lock = new.queueing_lock and twin.partition = 0
                and twin.status = 'todo'
        )
    union all
    select new.queueing_lock
    from new
    where new.queueing_lock is not null
    group by new.queueing_lock
    having count(*) > 1
    limit 1
),
numbered as materialized (
    select
        placed.*, coalesce(placed.id, nextval('procrastinate_jobs_id_seq')) as new_id
    from (select * from new where not exists (select from clash) order by place) as placed
),
inserted as (
    insert into procrastinate_jobs as job (
        id, partition, queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at,
        hold
    )
    select
        new.new_id, 0, new.queue_name, new.task_name, new.priority, new.lock, new.queueing_lock,
        new.args, new.scheduled_at,
        case when new.scheduled_at > statement_timestamp()
            then 'schedule'::procrastinate_hold end
    from numbered as new
    order by new.queueing_lock collate "C", new.place
    returning job.id, job.queue_name, job.scheduled_at, job.hold
),
woken as materialized (
    select pg_notify(
        case when hold is null then 'procrastinate_jobs' else 'procrastinate_schedule' end,
        queue_name
    )
    from inserted
    where hold is null or scheduled_at < statement_timestamp() + interval '60 seconds'
    group by queue_name, hold
)
select inserted.id, null::text from inserted, (select count(*) from woken) as woken
union all
select null, clash.queueing_lock from clash
