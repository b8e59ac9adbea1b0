-- name: settle_jobs_with_results :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000, array_nulls = on.
-- settings: patience, array_nulls
-- The same as settle_jobs, and keeps what tasks of attempts that succeeded returned, or why that is not kept.
--
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
        given.priority, given.queue_name, given.lock, given.began_us, given.ended_us, given.error, given.result::jsonb as result, given.result_error
    from unnest(
        %(ids)s::bigint[], %(leases)s::integer[], %(wanted)s::text[],
        %(begun)s::integer[]::boolean[], %(unknown)s::integer[]::boolean[],
        %(due_ats)s::text[]::timestamptz[],
        %(delays_us)s::bigint[],
        %(priorities)s::integer[],
        %(queue_names)s::text[],
        %(locks)s::text[],
        %(began_us)s::bigint[], %(ended_us)s::bigint[],
        -- What tasks returned, as JSON, and why that is not kept; both null if it was not to be kept. (A null
        -- array is filled up with nulls.) The results are one text, in which the control character 30 separates
        -- them: it stands in no JSON. As the text of an array each would be quoted by the worker and read
        -- character by character here, a fifth of what a result of 200 bytes costs both.
        %(errors)s::text[], string_to_array(%(results)s::text, chr(30), ''::text), %(result_errors)s::text[]
    ) as given(
        id, lease, wanted, begun, unknown, due_at, delay_us, priority, queue_name, lock,
        began_us, ended_us, error, result, result_error
    )
    join procrastinate_jobs as job on job.id = given.id
    -- Jobs are looked up by id. The array hides how many there are: the planner expects ten ids and
    -- uses the primary key. When it knew the number, it scanned small tables from end to end.
    --
    -- True if this worker holds the job, in a status from which a job may end (TRANSITIONS, a table of the
    -- code, lists them). The CASE hides this from the planner, for two reasons. The index of running jobs
    -- has a dead entry for each job that its worker has ended: with an old snapshot open elsewhere, the
    -- ending of 20 jobs took 6.6 ms at first and 15 ms after 16,000 others (by id: 6 to 7 ms). And the
    -- planner takes a CASE to match half of all rows: from the plain columns it expected one row, and chose
    -- a nested loop over 250,000 pairs for 500 jobs.
    where job.partition = %(partition)s::smallint and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[]))) and case
        when job.status in ('doing') and job.worker_id = %(worker_id)s::bigint then true
        else false
    end and job.lease = given.lease
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
        leaving.status::procrastinate_job_status as status,
        case when leaving.status = 'todo' and leaving.due > statement_timestamp()
            then 'schedule'::procrastinate_hold end as hold,
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
            ) end as errors, leaving.result, leaving.result_error
    from (
        select
            leaving.*,
            case
                when leaving.status = 'aborted' and leaving.wanted <> 'aborted'
                    then coalesce(leaving.error::jsonb, '[]')
                        -- An entry for a job's errors if no exception gave one.
                        || pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
                            'attempt', leaving.attempts,
                            'at', pg_catalog.to_char(
                                statement_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
                            ),
                            'type', %(aborted_type)s::text,
                            'message', %(why_aborted)s::text,
                            'traceback', ''
                        ))
                when leaving.error is not null
                    then pg_catalog.jsonb_build_array(leaving.error::jsonb)
            end as added
        from (
            select
                leaving.*,
                -- The status that a job gets which leaves its worker. An abortion that was asked for ends it,
                -- unless it has succeeded. If a twin with its queueing lock waits, or comes before it among those
                -- that are leaving, it is cancelled: the twin will do the work.
                case
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
                end as status,
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
    update procrastinate_jobs as job
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
        errors = coalesce(verdict.errors, job.errors), result = verdict.result, result_error = verdict.result_error
    from verdict
    where job.partition = %(partition)s::smallint and job.id = verdict.id
    returning job.id, job.status, job.hold, job.queue_name, job.scheduled_at
),
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
-- 1 if anybody waits for the end of a job between the first and the last of these ids, else null. If so,
-- the worker sends `wake_waiters`, which finds out who waits for which. Most jobs are not waited for.
-- (It is one probe of an index, 3 % of what the ending of 100 jobs takes. To look for each id took
-- 9 %, and to notify here 19 %, of which half was planning.)
select settled.id, settled.status::text, (
    select 1
    from procrastinate_waits as wait
    where wait.partition = %(partition)s::smallint
        and wait.job_id >= %(first_id)s::bigint and wait.job_id <= %(last_id)s::bigint
    limit 1
)
from settled, (select count(*) from woken) as woken
