-- Workers: which are alive, and what becomes of the jobs of those that are not.

-- name: register_worker :one
-- settings: awake
-- Enters a worker and returns its id. It waits for a lock on the table, as a migration takes it.
insert into {schema}.procrastinate_workers
    (name, host, concurrency, task_names, pid, version, queues)
values (
    %(name)s::text, %(host)s::text, %(concurrency)s::integer, %(task_names)s::text[],
    %(pid)s::integer, %(version)s::text, %(queues)s::text[]
)
returning id

-- name: describe_worker :exec
-- Writes down again what a worker's registration had said, after its sign of life has made a new
-- row.
update {schema}.procrastinate_workers as worker
set host = %(host)s::text, concurrency = %(concurrency)s::integer,
    task_names = %(task_names)s::text[], pid = %(pid)s::integer, version = %(version)s::text,
    queues = %(queues)s::text[]
where worker.id = %(worker_id)s::bigint and worker.partition = 0

-- name: heartbeat :many
-- Says that the worker is alive, and how it is. Returns (rank, live, now), or nothing if its row was removed,
-- because it was taken for dead. `live` counts the live workers, this one included, and `rank` is
-- the place of its id among theirs, from 0.
update {schema}.procrastinate_workers as worker
set last_heartbeat = statement_timestamp(), alone = null,
    busy = %(busy)s::integer,
    trusted = %(trusted)s::integer::boolean,
    blocked_since = statement_timestamp()
        - %(blocked_us)s::bigint::float8 * interval '1 microsecond'
from (
    -- others: how many other workers are alive, and how many of them have lower ids; the server's
    -- time.
    select
        count(*) filter (where other.id < %(worker_id)s::bigint) as before,
        count(*) as number,
        statement_timestamp() as now
    from {schema}.procrastinate_workers as other
    where other.partition = 0 and other.id <> %(worker_id)s::bigint
        and other.last_heartbeat
            >= statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
) as others
where worker.id = %(worker_id)s::bigint and worker.partition = 0
returning others.before as rank, others.number + 1 as live, others.now

-- name: enter_again :exec
-- Enters a worker under the id that it had, because its row was removed. (An INSERT in a CTE of the
-- heartbeat is what a distributed database cannot run on one node.)
insert into {schema}.procrastinate_workers as worker (id, name)
values (%(worker_id)s::bigint, %(name)s::text)
on conflict (id, partition) do update set last_heartbeat = excluded.last_heartbeat

-- name: notify_listener :exec
-- Sends an empty notification, for a listener that checks whether it still hears.
select pg_catalog.pg_notify(%(channel)s::text, '')

-- name: notify :exec
-- Sends notifications that a statement has left to its flow, because it ran on another node.
select pg_catalog.pg_notify(news.channel, news.payload)
from unnest(%(channels)s::text[], %(payloads)s::text[]) as news(channel, payload)

-- name: unregister_worker :exec
-- Removes a worker that ends.
delete from {schema}.procrastinate_workers as worker
where worker.id = %(worker_id)s::bigint and worker.partition = 0

-- name: running_workers :many
-- settings: one_connection
-- Returns (id, how many jobs, partition) for each worker that holds running jobs in a partition. The
-- id is null for those that no worker holds, after a change by hand.
select job.worker_id, count(*), job.partition
from {schema}.procrastinate_jobs as job
where {>anywhere} and job.status = 'doing'
group by job.worker_id, job.partition

-- name: judge_workers :exec
-- Notes of each of these workers, when it is first found dead, whether it was alone: it held one
-- job, and no other worker of its host died in the same moment. (This is kept, because recover_jobs
-- may take its jobs one by one. A live worker has given a sign of life since.) A worker that another
-- transaction has in hand is left to that one. No statement that reads workers reads jobs as well,
-- because they stand in another place if the jobs are distributed.
update {schema}.procrastinate_workers as worker
set alone = found.alone
from (
    -- found: those that are found dead for the first time, locked.
    select
        worker.id,
        given.held = 1 and not exists (
            select from {schema}.procrastinate_workers as other
            where other.partition = 0 and other.id <> worker.id
                -- One that does not say its host, as its row was entered anew, may be of any.
                and coalesce(other.host = worker.host, true)
                and other.last_heartbeat
                    between worker.last_heartbeat
                        - %(moment_us)s::bigint::float8 * interval '1 microsecond'
                    and worker.last_heartbeat
                        + %(moment_us)s::bigint::float8 * interval '1 microsecond'
        ) as alone
    from unnest(%(worker_ids)s::bigint[], %(held)s::bigint[]) as given(id, held)
    join {schema}.procrastinate_workers as worker on worker.id = given.id and worker.partition = 0
    where worker.alone is null
        and worker.last_heartbeat
            < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
    order by worker.id
    for update of worker skip locked
) as found
where worker.id = found.id and worker.partition = 0

-- name: dead_workers :many
-- Returns (id, whether it was alone, as judge_workers has noted) for each of these workers that is
-- dead: it has given no sign of life within the timeout.
select given.id, coalesce(worker.alone, false)
from pg_catalog.unnest(%(worker_ids)s::bigint[]) as given(id)
left join {schema}.procrastinate_workers as worker
    on worker.id = given.id and worker.partition = 0
where worker.id is null
    or worker.last_heartbeat
        < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'

-- name: stalled_ids :many
-- settings: one_connection
-- Returns (id, partition) of the running jobs of these dead workers, and of none.
select job.id, job.partition
from {schema}.procrastinate_jobs as job
where {>of_dead where=anywhere}
order by job.id
limit %(limit)s::integer

-- name: recover_jobs :many
-- settings: patience
-- Takes running jobs (of these ids; null: all) from these dead workers and sends them back to the
-- queue. A job fails after `crash_limit` crashes if its last worker was alone, and after
-- `most_crashes` in any case. Returns (id, new status, queue, task).
--
-- leaving: the jobs, locked, with what each is wanted to become. What another transaction has in
-- hand is left.
with leaving as materialized (
    select
        job.id, job.attempts, least(job.crashes, 32766) + 1 as crashes, job.queueing_lock,
        job.abort_requested,
        job.errors,
        case
            when job.crashes + 1 >= %(most_crashes)s::integer
                or (
                    job.crashes + 1 >= %(crash_limit)s::integer
                    and job.worker_id = any(%(alone_ids)s::bigint[])
                )
                then 'failed'
            else 'todo'
        end as wanted
    {>patiently from="from"} {schema}.procrastinate_jobs as job
    where {>of_dead where="job.partition = %(partition)s::smallint"} and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
    limit %(limit)s::integer
    for update of job skip locked
),
-- judged: the same with their status, by the rule of settle_jobs.
judged as materialized (
    select leaving.*, {>verdict} as status from leaving
),
-- verdict: what becomes of each; its errors and the time of its end, if it ends.
verdict as materialized (
    select
        leaving.id, leaving.crashes,
        leaving.status::{schema}.procrastinate_job_status as status,
        case when leaving.status <> 'todo' then statement_timestamp() end as finished_at,
        case when leaving.status <> 'todo'
            then {>errors_after errors="leaving.errors" added="leaving.added"} end as errors
    from (
        select
            leaving.*,
            pg_catalog.jsonb_build_array({>entry type="%(lost_type)s::text"
                message="pg_catalog.replace(
                    %(why_lost)s::jsonb ->> leaving.status, '{crashes}', leaving.crashes::text
                )"}) as added
        from judged as leaving
    ) as leaving
),
-- recovered: the jobs as they are now.
recovered as (
    update {schema}.procrastinate_jobs as job
    set status = verdict.status,
        crashes = verdict.crashes,
        worker_id = case when verdict.status <> 'todo' then job.worker_id end,
        first_started_at = case when verdict.status = 'todo'
            then coalesce(job.first_started_at, job.started_at)
            else job.first_started_at end,
        finished_at = verdict.finished_at,
        errors = coalesce(verdict.errors, job.errors)
    from verdict
    where job.partition = %(partition)s::smallint and job.id = verdict.id
    returning job.id, job.status, job.queue_name, job.task_name
){>tell_recovered}

-- fragment: tell_recovered
,
-- woken: one notification for each queue in which a job is ready.
woken as materialized (
    select pg_catalog.pg_notify('procrastinate_jobs', recovered.queue_name)
    from recovered
    where recovered.status = 'todo'
    group by recovered.queue_name
)
select recovered.id, recovered.status::text, recovered.queue_name, recovered.task_name
from recovered, (select count(*) from woken) as woken

-- distributed fragment: tell_recovered
,
-- news: what is to be told of each job that is ready.
news as materialized (
    select
        recovered.id, recovered.status::text as status, recovered.queue_name, recovered.task_name,
        case when recovered.status = 'todo' then 'procrastinate_jobs' end as channel,
        recovered.{>at_partition} as payload
    from recovered
)
select news.id, news.status, news.queue_name, news.task_name, news.channel, news.payload
from news

-- name: any_unknown :many
-- settings: one_connection
-- Returns the partitions in which jobs wait whose task has been unknown to workers for longer than
-- the patience.
select distinct job.partition
from {schema}.procrastinate_jobs as job
where {>anywhere} and job.status = 'todo'
    and job.unknown_since <= statement_timestamp()
        - %(patience_us)s::bigint::float8 * interval '1 microsecond'

-- name: known_names :many
-- Returns the names of the tasks that live workers know, and null if one does not say what it
-- knows.
select distinct known.name
from {schema}.procrastinate_workers as worker
cross join lateral pg_catalog.unnest(
    coalesce(worker.task_names, array[null]::text[])
) as known(name)
where worker.partition = 0
    and worker.last_heartbeat
        >= statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'

-- name: fail_unknown :many
-- Fails waiting jobs whose task has been unknown to workers for longer than the patience. It spares
-- tasks in `known_names`: live workers know them. Returns (id, status, queue, task, lock).
--
-- leaving: these jobs, locked. What another transaction has in hand is left.
with leaving as materialized (
    select job.id, job.attempts, job.errors
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status = 'todo'
        and job.unknown_since <= statement_timestamp()
            - %(patience_us)s::bigint::float8 * interval '1 microsecond'
        and job.task_name <> all(%(known_names)s::text[])
    order by job.id
    limit %(limit)s::integer
    for update skip locked
),
-- verdict: the same with their errors then.
verdict as materialized (
    select leaving.id, {>errors_after errors="leaving.errors" added="leaving.added"} as errors
    from (
        select
            leaving.*,
            pg_catalog.jsonb_build_array({>entry
                type="%(unknown_type)s::text" message="%(why_unknown)s::text"}) as added
        from leaving
    ) as leaving
),
-- failed: the jobs as they are now.
failed as (
    update {schema}.procrastinate_jobs as job
    set status = 'failed', hold = null, finished_at = statement_timestamp(),
        errors = verdict.errors
    from verdict
    where job.partition = %(partition)s::smallint and job.id = verdict.id
    returning job.id, job.status, job.queue_name, job.task_name, job.lock
)
select failed.id, failed.status::text, failed.queue_name, failed.task_name, failed.lock from failed

-- name: prune_workers :exec
-- Removes workers that have given no sign of life within the timeout, but for these, which hold
-- jobs.
delete from {schema}.procrastinate_workers as worker
where worker.partition = 0
    and worker.last_heartbeat
        < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
    and worker.id <> all(%(busy_ids)s::bigint[])

-- name: probe_partition :one
-- Asks for something that costs nothing: the node that has the partition answers, or it is away.
select exists (
    select from {schema}.procrastinate_locks as held
    where held.partition = %(partition)s::smallint and held.lock = ''
)::integer

-- name: abort_requests :many
-- settings: one_connection
-- Returns which of this worker's running jobs are to be aborted.
select job.id
from {schema}.procrastinate_jobs as job
where {>anywhere} and job.status = 'doing'
    and job.worker_id = %(worker_id)s::bigint
    and job.abort_requested

-- name: held_jobs :many
-- settings: one_connection
-- Returns the jobs that this worker holds, as the database sees it: after a claim whose answer was
-- lost.
select {>claimed_columns}
from {schema}.procrastinate_jobs as job
where {>anywhere} and job.status = 'doing'
    and job.worker_id = %(worker_id)s::bigint
order by job.id
