-- What becomes of attempts. Every statement is fenced: it changes a job only while this worker
-- holds it, by this lease, and returns the ids that it changed. `job_standings` tells what became
-- of the others: a recovery took the job away, or the statement ran before and only its answer was
-- lost.
--
-- Running jobs are locked in the order of the plan, and request_abort locks them by id. If a batch
-- and an abort wait for each other, the batch is refused when its patience is over, and written again.

-- name: finish_jobs :many
-- settings: patience, prepared
-- Writes that jobs have succeeded; most batches hold nothing else. Returns (id, 1 if anybody may wait
-- for one of them, else null) of those that it changed. The two ages say, in microseconds, how long
-- before this statement the attempt began and ended: the worker's clock is never compared with the
-- server's.
{>ending change=finished arrays="" names="" columns="" set=""}

-- name: finish_jobs_with_results :many
-- settings: patience, prepared, array_nulls
-- The same as finish_jobs, and keeps what the tasks returned, or why that is not kept.
{>ending change=finished
    arrays=result_arrays names=result_names columns=result_columns set=set_result}

-- name: finish_jobs_that_returned_nothing :many
-- settings: patience, prepared
-- The same as finish_jobs, for tasks that keep results and of which each returned None.
{>ending change=finished arrays="" names="" columns="" set=", result = 'null'"}

-- name: delete_finished :many
-- settings: patience
-- Removes jobs that ended, for workers that keep no history. Returns (id, 1 if anybody may wait for
-- one of them, else null) of those that it removed.
{>ending change=deleted}

-- fragment: ending
{>change arrays=arrays names=names columns=columns set=set}, {>awaited}

-- distributed fragment: ending
-- ended: the jobs. (A distributed database takes no other table in RETURNING.)
with ended as (
    {>change arrays=arrays names=names columns=columns set=set}
)
select ended.id, {>awaited} from ended

-- fragment: finished
update {schema}.procrastinate_jobs as job
set status = 'succeeded', started_at = ended.began, finished_at = ended.ended{>set of="ended"}
from (
    -- `offset 0` keeps the times from being computed in SET: a distributed database refuses that.
    select
        said.id, said.lease,
        statement_timestamp() - said.began_us::float8 * interval '1 microsecond' as began,
        statement_timestamp() - said.ended_us::float8 * interval '1 microsecond' as ended{>columns of="said"}
    {>patiently from="from"} unnest(
        %(ids)s::bigint[], %(leases)s::integer[], %(began_us)s::bigint[], %(ended_us)s::bigint[]{>arrays}
    ) as said(id, lease, began_us, ended_us{>names})
    offset 0
) as ended
where job.partition = %(partition)s::smallint and job.id = ended.id and {>by_id}
    and {>is_held} and job.lease = ended.lease
returning job.id

-- fragment: set_result
, result = {>of}.result, result_error = {>of}.result_error

-- fragment: deleted
delete from {schema}.procrastinate_jobs as job
{>patiently from="using"} unnest(%(ids)s::bigint[], %(leases)s::integer[]) as ended(id, lease)
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
-- workers of the queues in which jobs wait again. Returns (id, new status, 1 if anybody may wait for
-- the end of one of the batch, else null) of the jobs that it changed.
{>settle arrays="" names="" columns="" carried="" set=""}

-- name: settle_jobs_with_results :many
-- settings: patience, array_nulls
-- The same as settle_jobs, and keeps what tasks of attempts that succeeded returned, or why that is not kept.
{>settle arrays=result_arrays names=result_names columns=result_columns
    carried=", leaving.result, leaving.result_error" set=set_result}

-- fragment: settle
-- leaving: the jobs of the batch that this worker holds, locked, with what was said of each.
-- `wanted` is the status that the worker asks for. `begun` is false for an attempt whose task was not
-- called: it is not counted. `unknown` is true if the worker does not know the task. A job that is to
-- be tried again is due at a time or after a delay; with neither it is ready again in its place. A null
-- priority, queue or lock leaves that of the job. (A list that is sent has numbers or texts, so each
-- truth comes as 0 or 1.)
with leaving as materialized (
    select
        job.id, job.queueing_lock, job.abort_requested, job.attempts, job.bounces, job.errors,
        given.wanted, given.begun, given.unknown, given.due_at, given.delay_us,
        given.priority, given.queue_name, given.lock, given.began_us, given.ended_us, given.error{>columns of="given"}
    {>patiently from="from"} unnest(
        %(ids)s::bigint[], %(leases)s::integer[], %(wanted)s::text[],
        %(begun)s::integer[]::boolean[], %(unknown)s::integer[]::boolean[],
        {>with_nulls list="%(due_ats)s" type="text"}::timestamptz[],
        {>with_nulls list="%(delays_us)s" type="bigint"},
        {>with_nulls list="%(priorities)s" type="integer"},
        {>with_nulls list="%(queue_names)s" type="text"},
        {>with_nulls list="%(locks)s" type="text"},
        %(began_us)s::bigint[], %(ended_us)s::bigint[],
        {>with_nulls list="%(errors)s" type="text"}{>arrays}
    ) as given(
        id, lease, wanted, begun, unknown, due_at, delay_us, priority, queue_name, lock,
        began_us, ended_us, error{>names}
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
            then {>errors_after errors="leaving.errors" added="leaving.added"} end as errors{>carried}
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
        -- (Without this, the planner copies the expression of `added` to each place that names it.)
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
        first_started_at = case when verdict.begun and verdict.status = 'todo'
            then coalesce(job.first_started_at, verdict.started_at)
            else job.first_started_at end,
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
        errors = coalesce(verdict.errors, job.errors){>set of="verdict"}
    from verdict
    where job.partition = %(partition)s::smallint and job.id = verdict.id
    returning job.id, job.status, job.hold, job.queue_name, job.scheduled_at
){>tell_settled}

-- fragment: tell_settled
,
-- woken: one notification for each queue in which a job is ready or due within a minute. (A worker
-- looks at the schedule twice a minute. Its rows are counted below: a part that nothing reads is not run.)
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
select settled.id, settled.status::text, {>awaited}
from settled, (select count(*) from woken) as woken

-- distributed fragment: tell_settled
,
-- news: what is to be told of each job that is ready or due within a minute. (Workers listen on the
-- coordinator, so a node cannot wake them: the channel and the payload are two more columns, which
-- the worker sends on.)
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
select news.id, news.status, {>awaited}, news.channel, news.payload
from news

-- name: wake_waiters :many
-- settings: prepared
-- Notifies each process that waits for the end of any of these jobs, which have ended or are gone.
-- The payload is their ids, in several notifications if it would be longer than 7,000 bytes.
{>waking}

-- fragment: waking
select pg_catalog.pg_notify(news.channel, news.payload)::text
from (
    {>news_for_waiters}
) as news

-- distributed fragment: waking
-- Who waits listens on the coordinator, so a node cannot notify: it returns channels and payloads.
select null::text, news.channel, news.payload
from (
    {>news_for_waiters}
) as news

-- fragment: news_for_waiters
select
    'procrastinate_ends_'::text || awaited.waiter::text as channel,
    string_agg(awaited.job_id::text, ' '::text order by awaited.job_id) as payload
from (
    -- An id and a space are 20 bytes at most.
    select
        wait.waiter, wait.job_id,
        (row_number() over (partition by wait.waiter order by wait.job_id) - 1) / 350 as part
    from {schema}.procrastinate_waits as wait
    where wait.partition = %(partition)s::smallint and wait.job_id = any(%(ids)s::bigint[])
) as awaited
group by awaited.waiter, awaited.part

-- name: job_standings :many
-- Returns what the rows of these jobs say now, for jobs that a write did not change.
select job.id, job.status::text, job.worker_id, job.lease, job.crashes
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and {>by_id}
