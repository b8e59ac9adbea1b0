-- name: fail_unknown :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Fails waiting jobs whose task has been unknown to workers for longer than the patience. It spares
-- tasks in `known_names`: live workers know them. Returns (id, status, queue, task, lock).
--
-- leaving: these jobs, locked. What another transaction has in hand is left.
with leaving as materialized (
    select job.id, job.attempts, job.errors
    from procrastinate_jobs as job
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
    -- Some errors of a job, followed by those that are added. At most 20 are kept, the first one and
    -- the last ones, because all of them are written anew with each attempt. The first after the gap
    -- says how many were omitted. The first and the last three keep their tracebacks. (If the column or
    -- an entry was changed by hand, it may be anything: that does not keep the job from ending.)
    select leaving.id, (
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
    ) as errors
    from (
        select
            leaving.*,
            -- An entry for a job's errors if no exception gave one.
            pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
                'attempt', leaving.attempts,
                'at', pg_catalog.to_char(
                    statement_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
                ),
                'type', %(unknown_type)s::text,
                'message', %(why_unknown)s::text,
                'traceback', ''
            )) as added
        from leaving
    ) as leaving
),
-- failed: the jobs as they are now.
failed as (
    update procrastinate_jobs as job
    set status = 'failed', hold = null, finished_at = statement_timestamp(),
        errors = verdict.errors
    from verdict
    where job.partition = %(partition)s::smallint and job.id = verdict.id
    returning job.id, job.status, job.queue_name, job.task_name, job.lock
)
select failed.id, failed.status::text, failed.queue_name, failed.task_name, failed.lock from failed
