-- Reading and changing jobs by hand: the job manager's statements. Those that change several jobs
-- lock them first, in the order of their lines, so that two that meet never wait for each other in
-- a circle.

-- name: get_job :many
-- settings: one_connection
-- Returns one job, or no row.
select {>job_columns}
from {schema}.procrastinate_jobs as job
where job.id = %(id)s::bigint and {>anywhere}

-- name: read_jobs :many
-- settings: prepared
-- Returns (id, status, and all that is shown) of those of these jobs that are there.
select job.id, job.status::text, {>job_columns}
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and {>by_id}

-- name: get_errors :many
-- settings: one_connection
-- Returns the errors of a job. (Its worker does not get them with the claim.)
select job.errors::text as errors
from {schema}.procrastinate_jobs as job
where job.id = %(id)s::bigint and {>anywhere}

-- fragment: some
-- The ids of one page of jobs, of those for which a condition about their status holds. A null
-- filter matches everything.
select job.id
from {schema}.procrastinate_jobs as job
where {>anywhere} and {>status}
    and job.id > %(after_id)s::bigint
    and (%(before_id)s::bigint is null or job.id < %(before_id)s::bigint)
    and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
    and {>filtered}
order by {>order}
limit %(limit)s::integer

-- fragment: page
-- page: the ids of a page of each kind of job, one branch for each index that holds jobs of one
-- status and few others. The planner drops the branches of statuses that are not wanted.
page as materialized (
    ({>some order=order
        status="%(statuses)s::text[] is null"})
    union all ({>some order=order
        status="'todo' = any(%(statuses)s::text[]) and job.status = 'todo' and job.hold is null"})
    union all ({>some order=order
        status="'todo' = any(%(statuses)s::text[]) and job.status = 'todo' and job.hold = 'schedule'"})
    union all ({>some order=order
        status="'todo' = any(%(statuses)s::text[]) and job.status = 'todo' and job.lock is not null
    and job.hold is distinct from 'schedule' and job.hold = 'lock'"})
    union all ({>some order=order
        status="'doing' = any(%(statuses)s::text[]) and job.status = 'doing'"})
    union all ({>some order=order
        status="'succeeded' = any(%(statuses)s::text[]) and job.status = 'succeeded'"})
    union all ({>some order=order
        status="'failed' = any(%(statuses)s::text[])
    and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'failed'"})
    union all ({>some order=order
        status="'cancelled' = any(%(statuses)s::text[])
    and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'cancelled'"})
    union all ({>some order=order
        status="'aborted' = any(%(statuses)s::text[])
    and job.status in ('failed', 'cancelled', 'aborted') and job.status = 'aborted'"})
)
select {>job_columns}
from {schema}.procrastinate_jobs as job
where {>anywhere} and job.id = any(array(select page.id from page))
order by {>order}
limit %(limit)s::integer

-- name: list_jobs :many
-- Returns a page of jobs between two ids, in order of id.
with {>page order="job.id"}

-- name: list_newest_jobs :many
-- Returns a page of jobs between two ids, from the newest on.
with {>page order="job.id desc"}

-- fragment: status_counts
-- How many jobs there are, in all and by status.
count(*),
    count(*) filter (where job.status = 'todo'),
    count(*) filter (where job.status = 'doing'),
    count(*) filter (where job.status = 'succeeded'),
    count(*) filter (where job.status = 'failed'),
    count(*) filter (where job.status = 'cancelled'),
    count(*) filter (where job.status = 'aborted')

-- fragment: count_filters
{>anywhere}
    and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
    and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
    and (%(lock)s::text is null or job.lock = %(lock)s::text)

-- name: list_queues :many
-- Returns (queue, jobs in all, and by status) for each queue.
select job.queue_name, {>status_counts}
from {schema}.procrastinate_jobs as job
where {>count_filters}
group by job.queue_name
order by job.queue_name

-- name: list_tasks :many
-- Returns (task, jobs in all, and by status) for each task.
select job.task_name, {>status_counts}
from {schema}.procrastinate_jobs as job
where {>count_filters}
group by job.task_name
order by job.task_name

-- name: list_locks :many
-- Returns (lock, jobs in all, and by status) for each lock.
select job.lock, {>status_counts}
from {schema}.procrastinate_jobs as job
where {>count_filters} and job.lock is not null
group by job.lock
order by job.lock

-- name: locate_jobs :many
-- settings: one_connection
-- Returns (id, partition) of those of these jobs that there are.
select job.id, job.partition
from {schema}.procrastinate_jobs as job
where {>anywhere} and job.id = any(%(ids)s::bigint[])

-- fragment: chosen_todo
-- chosen: the ids of those jobs that wait, locked in the order of their lines.
chosen as materialized (
    select job.id
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[]) and job.status = 'todo'
    order by job.lock, job.queue_name, job.priority desc, job.id
    for update
)

-- name: cancel_todo :many
-- Cancels jobs that wait. Returns (id, lock) of those that it cancelled.
with {>chosen_todo}
update {schema}.procrastinate_jobs as job
set status = 'cancelled', hold = null, finished_at = statement_timestamp()
where job.partition = %(partition)s::smallint and job.id = any(array(select chosen.id from chosen))
returning job.id, job.lock

-- name: delete_todo :many
-- Deletes jobs that wait. Returns (id, lock) of those that it deleted.
with {>chosen_todo}
delete from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id = any(array(select chosen.id from chosen))
returning job.id, job.lock

-- name: request_abort :many
-- Asks the workers that run these jobs to abort them, and wakes those workers. Returns (id, empty
-- text) of the jobs.
--
-- running: the ids of those jobs that run, locked.
with running as materialized (
    select job.id
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[]) and job.status::text = 'doing'
    order by job.id
    for update
),
-- asked: the same, marked.
asked as (
    update {schema}.procrastinate_jobs as job
    set abort_requested = true
    where job.partition = %(partition)s::smallint and job.id = any(array(select running.id from running))
    returning job.id
)
select asked.id, {>tell_asked} from asked

-- fragment: tell_asked
pg_catalog.pg_notify('procrastinate_aborts', asked.id::text)::text

-- distributed fragment: tell_asked
null::text, 'procrastinate_aborts' as channel, asked.id::text as payload

-- fragment: to_retry
-- Those of the jobs that wait or did not succeed, locked in the order of their lines.
select job.id, job.lock, job.queueing_lock, job.priority, job.status
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[])
    and job.status in ('todo', 'failed', 'cancelled', 'aborted')
order by job.lock, job.queue_name, job.priority desc, job.id
for update

-- fragment: retried
-- due: when they are due. At once is noted as this moment, since when they wait: else those that
-- failed yesterday would seem to wait since they were deferred.
due as materialized (
    select
        coalesce(%(retry_at)s::timestamptz, statement_timestamp()) as scheduled_at,
        case when %(retry_at)s::timestamptz > statement_timestamp()
            then 'schedule'::{schema}.procrastinate_hold end as hold
),
-- retried: the jobs as they are now, with the locks that they had before.
retried as (
    update {schema}.procrastinate_jobs as job
    set status = 'todo',
        abort_requested = false,
        crashes = 0,
        bounces = null,
        unknown_since = null,
        worker_id = null,
        started_at = null,
        first_started_at = null,
        finished_at = null,
        result = null,
        result_error = null,
        attempts = case when job.status = 'todo' then job.attempts else 0 end,
        scheduled_at = due.scheduled_at,
        hold = due.hold,
        priority = coalesce(%(priority)s::integer, job.priority),
        queue_name = coalesce(%(queue_name)s::text, job.queue_name),
        lock = coalesce(%(lock)s::text, job.lock)
    from before
    cross join due
    where job.partition = %(partition)s::smallint and job.id = before.id
    returning job.id, before.lock, job.queue_name, job.hold, job.scheduled_at
)
select
    retried.id,
    retried.lock,
    {>tell_retried}
from retried

-- fragment: tell_retried
case
    when retried.hold is null
        then pg_catalog.pg_notify('procrastinate_jobs', retried.queue_name)::text
    when retried.scheduled_at < statement_timestamp() + interval '60 seconds'
        then pg_catalog.pg_notify('procrastinate_schedule', retried.queue_name)::text
end

-- distributed fragment: tell_retried
null::text,
case
    when retried.hold is null then 'procrastinate_jobs'
    when retried.scheduled_at < statement_timestamp() + interval '60 seconds'
        then 'procrastinate_schedule'
end as channel,
retried.{>at_partition} as payload

-- name: retry_jobs_by_hand :many
-- Makes ended or waiting jobs due at a time (null: at once), with as many attempts as new ones, and
-- wakes the workers. Returns (id, lock it had before, empty text or null).
with before as materialized (
    {>to_retry}
),
{>retried}

-- name: retry_unless_twin_waits :many
-- The same as retry_jobs_by_hand, but leaves jobs as they are whose twin with the same queueing lock
-- waits already. Of several with one queueing lock it takes the first by (priority, id).
with chosen as materialized (
    {>to_retry}
),
-- ranked: the same with their place among those with one queueing lock. What waits already is
-- first.
ranked as materialized (
    select
        chosen.id,
        chosen.lock,
        chosen.queueing_lock,
        row_number() over (
            partition by chosen.queueing_lock
            order by chosen.status <> 'todo', chosen.priority desc, chosen.id
        ) as place
    from chosen
),
-- before: the first of each queueing lock, unless a twin waits, in an order in which two that retry
-- the same queueing locks do not wait in a circle.
before as materialized (
    select ranked.id, ranked.lock
    from ranked
    where ranked.queueing_lock is null
        or ranked.place = 1 and not exists (
            select from {schema}.procrastinate_jobs as twin
            where twin.queueing_lock = ranked.queueing_lock and twin.partition = %(partition)s::smallint
                and twin.status = 'todo' and twin.id <> ranked.id
        )
    order by ranked.queueing_lock collate "C", ranked.id
),
{>retried}

-- name: list_stalled :many
-- settings: one_connection
-- Returns the jobs that run on these dead workers, or on none.
select {>job_columns}
from {schema}.procrastinate_jobs as job
where {>of_dead where=anywhere}
    and (%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
    and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
order by job.id
