-- name: roll_up_minutes :one
-- settings: patience, asynchronous
-- Makes one row of an hour of the rows of its minutes, once they are a day old. Returns how many rows
-- of minutes it took: if as many as it may, there may be more.
with old as materialized (
    select minute.begins_at, minute.queue_name, minute.task_name
    from procrastinate_minutes as minute
    where minute.partition = 0 and minute.seconds = 60
        and minute.begins_at < pg_catalog.date_bin(
            interval '1 hour', statement_timestamp(), '2000-01-01 00:00+00'::timestamptz
        ) - interval '1 day'
    order by minute.begins_at, minute.queue_name, minute.task_name
    limit %(limit)s::integer
    for update skip locked
),
taken as (
    delete from procrastinate_minutes as minute
    using old
    where minute.partition = 0 and minute.seconds = 60 and minute.begins_at = old.begins_at
        and minute.queue_name = old.queue_name and minute.task_name = old.task_name
    returning
        minute.begins_at, minute.queue_name, minute.task_name, minute.succeeded, minute.failed,
        minute.cancelled, minute.aborted, minute.retried, minute.seconds_run, minute.seconds_waited,
        minute.run_buckets, minute.waited_buckets
),
added as (
    insert into procrastinate_minutes as minute (
        begins_at, seconds, queue_name, task_name, partition, succeeded, failed, cancelled, aborted,
        retried, seconds_run, seconds_waited, run_buckets, waited_buckets
    )
    select
        pg_catalog.date_bin(interval '1 hour', taken.begins_at, '2000-01-01 00:00+00'::timestamptz),
        3600, taken.queue_name, taken.task_name, 0, sum(taken.succeeded), sum(taken.failed),
        sum(taken.cancelled), sum(taken.aborted), sum(taken.retried), sum(taken.seconds_run),
        sum(taken.seconds_waited),
        -- The counts of all rows for each bucket of durations (`model/minutes.py`, rule 1). By their places,
        -- because to unnest and to sum them took seven times as long.
        array[
            coalesce(sum(taken.run_buckets[1]), 0), coalesce(sum(taken.run_buckets[2]), 0), coalesce(sum(taken.run_buckets[3]), 0), coalesce(sum(taken.run_buckets[4]), 0),
            coalesce(sum(taken.run_buckets[5]), 0), coalesce(sum(taken.run_buckets[6]), 0), coalesce(sum(taken.run_buckets[7]), 0), coalesce(sum(taken.run_buckets[8]), 0),
            coalesce(sum(taken.run_buckets[9]), 0), coalesce(sum(taken.run_buckets[10]), 0), coalesce(sum(taken.run_buckets[11]), 0), coalesce(sum(taken.run_buckets[12]), 0),
            coalesce(sum(taken.run_buckets[13]), 0), coalesce(sum(taken.run_buckets[14]), 0), coalesce(sum(taken.run_buckets[15]), 0), coalesce(sum(taken.run_buckets[16]), 0),
            coalesce(sum(taken.run_buckets[17]), 0), coalesce(sum(taken.run_buckets[18]), 0), coalesce(sum(taken.run_buckets[19]), 0), coalesce(sum(taken.run_buckets[20]), 0),
            coalesce(sum(taken.run_buckets[21]), 0), coalesce(sum(taken.run_buckets[22]), 0), coalesce(sum(taken.run_buckets[23]), 0), coalesce(sum(taken.run_buckets[24]), 0),
            coalesce(sum(taken.run_buckets[25]), 0), coalesce(sum(taken.run_buckets[26]), 0), coalesce(sum(taken.run_buckets[27]), 0), coalesce(sum(taken.run_buckets[28]), 0)
        ]::bigint[],
        array[
            coalesce(sum(taken.waited_buckets[1]), 0), coalesce(sum(taken.waited_buckets[2]), 0), coalesce(sum(taken.waited_buckets[3]), 0), coalesce(sum(taken.waited_buckets[4]), 0),
            coalesce(sum(taken.waited_buckets[5]), 0), coalesce(sum(taken.waited_buckets[6]), 0), coalesce(sum(taken.waited_buckets[7]), 0), coalesce(sum(taken.waited_buckets[8]), 0),
            coalesce(sum(taken.waited_buckets[9]), 0), coalesce(sum(taken.waited_buckets[10]), 0), coalesce(sum(taken.waited_buckets[11]), 0), coalesce(sum(taken.waited_buckets[12]), 0),
            coalesce(sum(taken.waited_buckets[13]), 0), coalesce(sum(taken.waited_buckets[14]), 0), coalesce(sum(taken.waited_buckets[15]), 0), coalesce(sum(taken.waited_buckets[16]), 0),
            coalesce(sum(taken.waited_buckets[17]), 0), coalesce(sum(taken.waited_buckets[18]), 0), coalesce(sum(taken.waited_buckets[19]), 0), coalesce(sum(taken.waited_buckets[20]), 0),
            coalesce(sum(taken.waited_buckets[21]), 0), coalesce(sum(taken.waited_buckets[22]), 0), coalesce(sum(taken.waited_buckets[23]), 0), coalesce(sum(taken.waited_buckets[24]), 0),
            coalesce(sum(taken.waited_buckets[25]), 0), coalesce(sum(taken.waited_buckets[26]), 0), coalesce(sum(taken.waited_buckets[27]), 0), coalesce(sum(taken.waited_buckets[28]), 0)
        ]::bigint[]
    from taken
    group by 1, taken.queue_name, taken.task_name
    order by 1, taken.queue_name, taken.task_name
    -- Adds to the rows that are there.
    on conflict (begins_at, seconds, queue_name, task_name, partition) do update
    set succeeded = minute.succeeded + excluded.succeeded,
        failed = minute.failed + excluded.failed,
        cancelled = minute.cancelled + excluded.cancelled,
        aborted = minute.aborted + excluded.aborted,
        retried = minute.retried + excluded.retried,
        seconds_run = minute.seconds_run + excluded.seconds_run,
        seconds_waited = minute.seconds_waited + excluded.seconds_waited,
        -- The counts of a row and of what is added to it, for each bucket of durations.
        run_buckets = (
            select pg_catalog.array_agg(coalesce(here.count, 0) + coalesce(here.more, 0) order by here.place)
            from unnest(minute.run_buckets, excluded.run_buckets) with ordinality as here(count, more, place)
        ),
        waited_buckets = (
            select pg_catalog.array_agg(coalesce(here.count, 0) + coalesce(here.more, 0) order by here.place)
            from unnest(minute.waited_buckets, excluded.waited_buckets) with ordinality as here(count, more, place)
        )
)
select count(*)::integer from taken
