-- What becomes of attempts. Every statement is fenced: it changes a job only while this worker
-- holds it, by this lease, and returns the ids that it changed. `job_standings` tells what became
-- of the others: a recovery took the job away, or the statement ran before and only its answer was
-- lost.
--
-- Running jobs are locked in the order of the plan, and request_abort locks them by id. If a batch
-- and an abort wait for each other, the batch is refused when its patience is over, and written again.

-- name: finish_jobs :many
-- settings: patience, prepared
-- Writes that jobs have succeeded; most batches hold nothing else. Returns the ids that it changed.
-- The two ages say, in microseconds, how long before this statement the attempt began and ended:
-- the worker's clock is never compared with the server's.
update {schema}.procrastinate_jobs as job
set status = 'succeeded', started_at = ended.began, finished_at = ended.ended
from (
    -- `offset 0` keeps the times from being computed in SET: a distributed database refuses that.
    select
        said.id, said.lease,
        statement_timestamp() - said.began_us::float8 * interval '1 microsecond' as began,
        statement_timestamp() - said.ended_us::float8 * interval '1 microsecond' as ended
    from unnest(
        %(ids)s::bigint[], %(leases)s::integer[], %(began_us)s::bigint[], %(ended_us)s::bigint[]
    ) as said(id, lease, began_us, ended_us)
    offset 0
) as ended
where job.partition = %(partition)s::smallint and job.id = ended.id and {>by_id}
    and {>is_held} and job.lease = ended.lease
returning job.id

-- name: delete_finished :many
-- settings: patience
-- Removes jobs that ended, for workers that keep no history. Returns the ids that it removed.
delete from {schema}.procrastinate_jobs as job
using unnest(%(ids)s::bigint[], %(leases)s::integer[]) as ended(id, lease)
where job.partition = %(partition)s::smallint and job.id = ended.id and {>by_id}
    and {>is_held} and job.lease = ended.lease
returning job.id

-- name: delete_ended :exec
-- Removes jobs that an earlier statement of the same transaction has ended although they were to go
-- back to the queue, for workers that keep nothing. (Such jobs are few: a statement of its own
-- costs nothing if there are none.)
delete from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and {>by_id}
    and case when job.status in ('todo', 'doing') then false else true end

-- name: settle_jobs :many
-- settings: patience, array_nulls
-- Writes what became of a batch of attempts: ended, to be tried again, or handed back. Wakes the
-- workers of what waits. Returns (id, new status) of the jobs that it changed.
--
-- leaving: the jobs of the batch that this worker holds, locked, with what was said of each.
-- `begun` is false for an attempt whose task was not called: it is not counted. A job is due at a
-- time or after a delay; with neither it is ready again in its place. A null change leaves the
-- value.
with leaving as materialized (
    select
        job.id, job.queueing_lock, job.abort_requested, job.attempts, job.bounces, job.errors,
        given.wanted, given.begun, given.unknown, given.due_at, given.delay_us,
        given.priority, given.queue_name, given.lock, given.began_us, given.ended_us, given.error
    from unnest(
        %(ids)s::bigint[], %(leases)s::integer[], %(wanted)s::text[],
        %(begun)s::integer[]::boolean[], %(unknown)s::integer[]::boolean[],
        %(due_ats)s::text[]::timestamptz[], %(delays_us)s::bigint[],
        %(priorities)s::integer[], %(queue_names)s::text[], %(locks)s::text[],
        %(began_us)s::bigint[], %(ended_us)s::bigint[], %(errors)s::text[]
    ) as given(
        id, lease, wanted, begun, unknown, due_at, delay_us, priority, queue_name, lock,
        began_us, ended_us, error
    )
    join {schema}.procrastinate_jobs as job on job.id = given.id
    where job.partition = %(partition)s::smallint and {>by_id} and {>is_held} and job.lease = given.lease
    for update of job
),
-- verdict: what becomes of each: its status, the time when it is due (null: at once), and its errors
-- if any are added. The delay of a job whose task was not called doubles each time.
-- (All that depends on the time or on a text is computed here: a distributed database refuses it in
-- an update.)
verdict as materialized (
    select
        leaving.id, leaving.begun, leaving.unknown, leaving.delay_us, leaving.due,
        leaving.priority, leaving.queue_name, leaving.lock,
        leaving.status::{schema}.procrastinate_job_status as status,
        case when leaving.status = 'todo' and leaving.due > statement_timestamp()
            then 'schedule'::{schema}.procrastinate_hold end as hold,
        case when leaving.begun
            then statement_timestamp() - leaving.began_us::float8 * interval '1 microsecond'
        end as started_at,
        case
            when leaving.begun
                then statement_timestamp() - leaving.ended_us::float8 * interval '1 microsecond'
            when leaving.status <> 'todo' then statement_timestamp()
        end as finished_at,
        case when leaving.unknown then statement_timestamp() end as unknown_since,
        case when leaving.added is not null
            then {>errors_after errors="leaving.errors" added="leaving.added"} end as errors
    from (
        select
            leaving.*,
            case
                when leaving.status = 'aborted' and leaving.wanted <> 'aborted'
                    then coalesce(leaving.error::jsonb, '[]')
                        || pg_catalog.jsonb_build_array({>entry
                            type="%(aborted_type)s::text" message="%(why_aborted)s::text"})
                when leaving.error is not null
                    then pg_catalog.jsonb_build_array(leaving.error::jsonb)
            end as added
        from (
            select
                leaving.*,
                {>verdict} as status,
                coalesce(leaving.due_at, statement_timestamp() + interval '1 microsecond' * case
                    when leaving.begun or leaving.delay_us is null then leaving.delay_us
                    else least(
                        leaving.delay_us::float8
                            * pg_catalog.power(2, least(coalesce(leaving.bounces, 0), 20)),
                        %(longest_bounce_us)s::bigint
                    )
                end) as due
            from leaving
        ) as leaving
        -- (Else `added` is planned, and computed, wherever it stands.)
        offset 0
    ) as leaving
),
-- settled: the jobs as they are now.
settled as (
    update {schema}.procrastinate_jobs as job
    set status = verdict.status,
        hold = verdict.hold,
        scheduled_at = coalesce(verdict.due, job.scheduled_at),
        worker_id = case when verdict.status <> 'todo' then job.worker_id end,
        attempts = case when verdict.begun then job.attempts else greatest(job.attempts, 1) - 1 end,
        started_at = verdict.started_at,
        finished_at = verdict.finished_at,
        priority = coalesce(verdict.priority, job.priority),
        queue_name = coalesce(verdict.queue_name, job.queue_name),
        lock = coalesce(verdict.lock, job.lock),
        bounces = case
            when verdict.begun then null
            when verdict.delay_us is null then job.bounces
            else least(coalesce(job.bounces, 0) + 1, 1000)
        end,
        unknown_since = case when verdict.unknown or not verdict.begun
            then coalesce(job.unknown_since, verdict.unknown_since) end,
        errors = coalesce(verdict.errors, job.errors)
    from verdict
    where job.partition = %(partition)s::smallint and job.id = verdict.id
    returning job.id, job.status, job.hold, job.queue_name, job.scheduled_at
){>tell_settled}

-- fragment: tell_settled
,
-- woken: one notification for each queue in which a job is ready or due within a minute. (A worker
-- looks at the schedule twice a minute.)
woken as materialized (
    select pg_catalog.pg_notify(news.channel, news.queue_name)
    from (
        select
            case when settled.hold is null then 'procrastinate_jobs'
                else 'procrastinate_schedule' end as channel,
            settled.queue_name
        from settled
        where settled.status = 'todo' and (
            settled.hold is null
            or settled.scheduled_at < statement_timestamp() + interval '60 seconds'
        )
        group by 1, 2
    ) as news
)
select settled.id, settled.status::text
from settled, (select count(*) from woken) as woken

-- distributed fragment: tell_settled
,
-- news: what is to be told of each job that is ready or due within a minute.
news as materialized (
    select
        settled.id, settled.status::text as status,
        case
            when settled.status <> 'todo' then null
            when settled.hold is null then 'procrastinate_jobs'
            when settled.scheduled_at < statement_timestamp() + interval '60 seconds'
                then 'procrastinate_schedule'
        end as channel,
        settled.{>at_partition} as payload
    from settled
)
select news.id, news.status, news.channel, news.payload
from news

-- name: job_standings :many
-- Returns what the rows of these jobs say now, for jobs that a write did not change.
select job.id, job.status::text, job.worker_id, job.lease, job.crashes
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and {>by_id}
