-- What statements of several files have in common.

-- fragment: anywhere
job.partition = %(partition)s::smallint

-- distributed fragment: anywhere
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
job.partition = any(%(partitions)s::smallint[])

-- fragment: at_partition
-- What a notification of a distributed database says: the queue of a job, and its partition.
queue_name || '@'::text || %(partition)s::smallint::text

-- fragment: patiently
{>from}

-- distributed fragment: patiently
-- What is set in front of a statement stays with the coordinator, and it is a node that waits here.
-- So the limit is set in the statement: for the rest of the transaction, as the one in front of it.
{>from} (
    select pg_catalog.set_config('lock_timeout', %(lock_timeout)s::text, true)
) as patience
cross join

-- fragment: readable
-- A time, or the nearest one that every driver can read. The table's check sees to that, but a
-- single row from before it, or without it, would keep all others from being read. (CASE, because
-- `greatest` passes over a null.)
case when {>moment} is not null then
    least(greatest({>moment}, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
end

-- fragment: claimed_columns
-- What the worker lacks of a job that it has just got. The claim's time is the same for all jobs,
-- so it stands in the first row.
job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
    job.queueing_lock, job.attempts,
    {>readable moment="job.deferred_at"} as deferred_at,
    {>readable moment="job.scheduled_at"} as scheduled_at,
    job.lease, nullif(job.crashes, 0) as crashes, job.meta::text as meta

-- fragment: begun
-- (The limits: a row that was changed by hand keeps no other from being claimed.)
status = 'doing',
    worker_id = %(worker_id)s::bigint,
    attempts = least(greatest(job.attempts, 0), 2147483646) + 1,
    lease = least(job.lease, 2147483646) + 1,
    started_at = statement_timestamp(),
    finished_at = null

-- fragment: job_columns
-- All that is shown of a job.
{>claimed_columns}, job.errors::text as errors, job.status::text as status,
    {>readable moment="job.started_at"} as started_at,
    {>readable moment="job.finished_at"} as finished_at, job.worker_id,
    job.result::text as result, job.result_error, job.hold::text as hold,
    {>readable moment="coalesce(job.first_started_at, job.started_at)"} as first_started_at

-- fragment: filtered
-- True of a job that people's filters let pass, but for its id and its status. A null filter lets
-- everything pass. `holds` are those that waiting jobs may have, '' for none; `since` and `through`
-- are about when a job ended, or started if it runs, or was deferred if it waits; `error` is a pattern.
(%(queue_name)s::text is null or job.queue_name = %(queue_name)s::text)
    and (%(task_name)s::text is null or job.task_name = %(task_name)s::text)
    and (%(lock)s::text is null or job.lock = %(lock)s::text)
    and (%(queueing_lock)s::text is null or job.queueing_lock = %(queueing_lock)s::text)
    and (%(worker_id)s::bigint is null or job.worker_id = %(worker_id)s::bigint)
    and (%(holds)s::text[] is null or job.status <> 'todo'
        or coalesce(job.hold::text, '') = any(%(holds)s::text[]))
    and (
        coalesce(%(since)s::timestamptz, %(through)s::timestamptz) is null
        or case job.status
            when 'todo' then job.deferred_at
            when 'doing' then coalesce(job.started_at, job.deferred_at)
            else coalesce(job.finished_at, job.deferred_at)
        end between coalesce(%(since)s::timestamptz, '-infinity')
            and coalesce(%(through)s::timestamptz, 'infinity')
    )
    and (
        %(error)s::text is null
        or lower(pg_catalog.concat_ws(': ',
            job.errors -> -1 ->> 'type'::text, job.errors -> -1 ->> 'message'::text
        )) like lower(%(error)s::text)
    )

-- fragment: wanted
-- The same, with the statuses.
(%(statuses)s::text[] is null
    or job.status = any(%(statuses)s::text[]::{schema}.procrastinate_job_status[]))
    and {>filtered}

-- fragment: by_id
-- Jobs are looked up by id. The array hides how many there are: the planner expects ten ids and
-- uses the primary key. When it knew the number, it scanned small tables from end to end.
job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))

-- fragment: is_held
-- True if this worker holds the job, in a status from which a job may end (TRANSITIONS, a table of the
-- code, lists them). The CASE hides this from the planner, for two reasons. The index of running jobs
-- has a dead entry for each job that its worker has ended: with an old snapshot open elsewhere, the
-- ending of 20 jobs took 6.6 ms at first and 15 ms after 16,000 others (by id: 6 to 7 ms). And the
-- planner takes a CASE to match half of all rows: from the plain columns it expected one row, and chose
-- a nested loop over 250,000 pairs for 500 jobs.
case
    when job.status in ({held}) and job.worker_id = %(worker_id)s::bigint then true
    else false
end

-- fragment: awaited
-- 1 if anybody waits for the end of a job between the first and the last of these ids, else null. If so,
-- the worker sends `wake_waiters`, which finds out who waits for which. Most jobs are not waited for.
-- (It is one probe of an index, 3 % of what the ending of 100 jobs takes. To look for each id took
-- 9 %, and to notify here 19 %, of which half was planning.)
(
    select 1
    from {schema}.procrastinate_waits as wait
    where wait.partition = %(partition)s::smallint
        and wait.job_id >= %(first_id)s::bigint and wait.job_id <= %(last_id)s::bigint
    limit 1
)

-- fragment: with_nulls
{>list}::{>type}[]

-- distributed fragment: with_nulls
-- A list in which some are null comes as JSON. (As the text of an array, a null is another text where a role
-- has array_nulls off. What is set in front of a statement stays with the coordinator.)
array(select each::{>type} from pg_catalog.jsonb_array_elements_text({>list}::text::jsonb) as each)

-- fragment: result_arrays
-- What tasks returned, as JSON, and why that is not kept; both null if it was not to be kept. (A null
-- array is filled up with nulls.) The results are one text, in which the control character 30 separates
-- them: it stands in no JSON. As the text of an array each would be quoted by the worker and read
-- character by character here, a fifth of what a result of 200 bytes costs both.
, string_to_array(%(results)s::text, chr(30), ''::text), {>with_nulls list="%(result_errors)s" type="text"}

-- fragment: result_names
, result, result_error

-- fragment: result_columns
, {>of}.result::jsonb as result, {>of}.result_error

-- fragment: verdict
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
        select from {schema}.procrastinate_jobs as twin
        where twin.queueing_lock = leaving.queueing_lock and twin.partition = %(partition)s::smallint
            and twin.status = 'todo'
    ) then 'cancelled'
    else 'todo'
end

-- fragment: entry
-- An entry for a job's errors if no exception gave one.
pg_catalog.jsonb_build_object(
    'attempt', leaving.attempts,
    'at', pg_catalog.to_char(
        statement_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
    ),
    'type', {>type},
    'message', {>message},
    'traceback', ''
)

-- fragment: errors_after
-- Some errors of a job, followed by those that are added. At most 20 are kept, the first one and
-- the last ones, because all of them are written anew with each attempt. The first after the gap
-- says how many were omitted. The first and the last three keep their tracebacks. (If the column or
-- an entry was changed by hand, it may be anything: that does not keep the job from ending.)
(
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
                when {>errors} is null then '[]'
                when jsonb_typeof({>errors}) = 'array' then {>errors}
                else pg_catalog.jsonb_build_array({>errors})
            end || {>added} as list
        ) as joined
    ) as whole
    cross join lateral jsonb_array_elements(whole.list) with ordinality as entry(value, place)
    where entry.place = 1 or entry.place > whole.length - 19
)

-- fragment: in_force
-- True of a pause that has not ended by itself.
(pause.paused_until is null or pause.paused_until > statement_timestamp())

-- fragment: of_dead
-- True of a running job whose worker is one of these dead ones, or null.
{>where} and job.status = 'doing'
    and (job.worker_id is null or job.worker_id = any(%(dead_ids)s::bigint[]))
