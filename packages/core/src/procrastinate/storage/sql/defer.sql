-- fragment: due
coalesce(
    %(scheduled_at)s::timestamptz,
    statement_timestamp() + %(schedule_in_us)s::bigint * interval '1 microsecond'
)

-- name: defer_job :one
-- Inserts one job and wakes the workers: on procrastinate_jobs when it is ready, on
-- procrastinate_schedule when it is due within a minute. (A worker looks at the schedule twice a
-- minute; without the second channel a job due in a second would start at the next look.)
-- Returns its id, or null when a job with the same queueing lock is waiting.
-- (By the function that other languages call, too: each session plans its INSERT once. As a statement
-- of its own it took the server 316 microseconds, and as this call 225.)
-- settings: only, jit, isolation
select {schema}.procrastinate_defer_job(
    %(task_name)s::text, %(args)s::jsonb, %(queue_name)s::text, %(priority)s::integer,
    %(lock)s::text, %(queueing_lock)s::text,
    {>due}
)

-- name: defer_alike :many
-- Inserts jobs that differ in their arguments alone and have no queueing lock: one for each element of a
-- JSON array, in whose order their ids are drawn. Wakes the workers once. Returns the ids.
-- (1,000 of them take the server 7.6 ms, and 10.7 by defer_jobs.)
with inserted as (
    insert into {schema}.procrastinate_jobs as job
        (queue_name, task_name, priority, lock, args, scheduled_at, hold)
    select
        %(queue_name)s::text, %(task_name)s::text, %(priority)s::integer, %(lock)s::text,
        batch.args,
        {>due},
        case when {>due} > statement_timestamp() then 'schedule'::{schema}.procrastinate_hold end
    from jsonb_array_elements(%(args)s::jsonb) as batch(args)
    returning job.id, job.queue_name, job.scheduled_at, job.hold
),
woken as materialized (
    select pg_notify(
        case when any_one.hold is null then 'procrastinate_jobs' else 'procrastinate_schedule' end,
        any_one.queue_name
    )
    from (select inserted.* from inserted limit 1) as any_one
    where any_one.hold is null
        or any_one.scheduled_at < statement_timestamp() + interval '60 seconds'
)
select inserted.id from inserted, (select count(*) from woken) as woken

-- name: draw_job_ids :many
-- So many new ids, for a batch that takes several statements.
select nextval('{schema}.procrastinate_jobs_id_seq')
from generate_series(1, %(count)s::integer)

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
            select from {schema}.procrastinate_jobs as twin
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
        placed.*, coalesce(placed.id, nextval('{schema}.procrastinate_jobs_id_seq')) as new_id
    from (select * from new where not exists (select from clash) order by place) as placed
),
inserted as (
    insert into {schema}.procrastinate_jobs as job (
        id, partition, queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at,
        hold
    )
    select
        new.new_id, 0, new.queue_name, new.task_name, new.priority, new.lock, new.queueing_lock,
        new.args, new.scheduled_at,
        case when new.scheduled_at > statement_timestamp()
            then 'schedule'::{schema}.procrastinate_hold end
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
