-- name: recover_jobs :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000.
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
    from procrastinate_jobs as job
    -- True of a running job whose worker is one of these dead ones, or null.
    where job.partition = %(partition)s::smallint and job.status = 'doing'
        and (job.worker_id is null or job.worker_id = any(%(dead_ids)s::bigint[])) and (%(ids)s::bigint[] is null or job.id = any(%(ids)s::bigint[]))
    limit %(limit)s::integer
    for update of job skip locked
),
-- judged: the same with their status, by the rule of settle_jobs.
judged as materialized (
    -- The status that a job gets which leaves its worker. An abortion that was asked for ends it,
    -- unless it has succeeded. If a twin with its queueing lock waits, or comes before it among those
    -- that are leaving, it is cancelled: the twin will do the work.
    select leaving.*, case
        when leaving.wanted = 'succeeded' then 'succeeded'
        when leaving.abort_requested then 'aborted'
        when leaving.wanted <> 'todo' then leaving.wanted
        when leaving.queueing_lock is null then 'todo'
        when leaving.id > min(leaving.id)
            filter (where leaving.wanted = 'todo' and not leaving.abort_requested)
            over (partition by leaving.queueing_lock) then 'cancelled'
        when exists (
            select from procrastinate_jobs as twin
            where twin.queueing_lock = leaving.queueing_lock and twin.partition = %(partition)s::smallint
                and twin.status = 'todo'
        ) then 'cancelled'
        else 'todo'
    end as status from leaving
),
-- verdict: what becomes of each; its errors and the time of its end, if it ends.
verdict as materialized (
    select
        leaving.id, leaving.crashes,
        leaving.status::procrastinate_job_status as status,
        case when leaving.status <> 'todo' then statement_timestamp() end as finished_at,
        case when leaving.status <> 'todo'
            -- Some errors of a job, followed by those that are added. At most 20 are kept, the first one and
            -- the last ones, because all of them are written anew with each attempt. The first after the gap
            -- says how many were omitted. The first and the last three keep their tracebacks. (If the column or
            -- an entry was changed by hand, it may be anything: that does not keep the job from ending.)
            then (
                select pg_catalog.jsonb_agg(
                    case
                        when jsonb_typeof(entry.value) <> 'object' then entry.value
                        when whole.length > 20 and entry.place = whole.length - 18
                            then entry.value - 'retry_error'::text
                                || pg_catalog.jsonb_build_object('traceback', '', 'omitted', (
                                select (whole.length - 20)::numeric + coalesce(sum(
                                    case when jsonb_typeof(former.value -> 'omitted'::text) = 'number'
                                        then (former.value ->> 'omitted'::text)::numeric end
                                ), 0)
                                from jsonb_array_elements(whole.list) as former(value)
                            ))
                        when entry.place > 1 and entry.place <= whole.length - 3
                            then entry.value - 'retry_error'::text || '{"traceback": ""}'
                        else entry.value
                    end
                    order by entry.place
                )
                from (
                    select joined.list, jsonb_array_length(joined.list) as length
                    from (
                        select case
                            when leaving.errors is null then '[]'
                            when jsonb_typeof(leaving.errors) = 'array' then leaving.errors
                            else pg_catalog.jsonb_build_array(leaving.errors)
                        end || leaving.added as list
                    ) as joined
                ) as whole
                cross join lateral jsonb_array_elements(whole.list) with ordinality as entry(value, place)
                where entry.place = 1 or entry.place > whole.length - 19
            ) end as errors
    from (
        select
            leaving.*,
            -- An entry for a job's errors if no exception gave one.
            pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
                'attempt', leaving.attempts,
                'at', pg_catalog.to_char(
                    statement_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
                ),
                'type', %(lost_type)s::text,
                'message', pg_catalog.replace(
                                    %(why_lost)s::jsonb ->> leaving.status, '{crashes}', leaving.crashes::text
                                ),
                'traceback', ''
            )) as added
        from judged as leaving
    ) as leaving
),
-- recovered: the jobs as they are now.
recovered as (
    update procrastinate_jobs as job
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
),
-- woken: one notification for each queue in which a job is ready.
woken as materialized (
    select pg_catalog.pg_notify('procrastinate_jobs', recovered.queue_name)
    from recovered
    where recovered.status = 'todo'
    group by recovered.queue_name
)
select recovered.id, recovered.status::text, recovered.queue_name, recovered.task_name
from recovered, (select count(*) from woken) as woken
