-- name: sum_minutes :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns what ended of one queue, of one task, of a task in a queue, or (both names are empty) of
-- all, in a time, in steps of some seconds. What is kept by the hour comes in hours if the steps are
-- shorter. It goes from minute to minute by the index, and reads two entries of it for each, however
-- many queues and tasks there are: a day in 20 ms with 1,000 of them, for which reading all rows of
-- the day took seconds.
with recursive moment as (
    (
        -- The first of the minutes and hours of which there are rows.
        select minute.begins_at, minute.seconds
        from procrastinate_minutes as minute
        where minute.begins_at >= %(since)s::timestamptz
            and (%(until)s::timestamptz is null or minute.begins_at < %(until)s::timestamptz)
        order by minute.begins_at, minute.seconds
        limit 1
    )
    union all
    select next.begins_at, next.seconds
    from moment
    cross join lateral (
        select minute.begins_at, minute.seconds
        from procrastinate_minutes as minute
        where (minute.begins_at, minute.seconds) > (moment.begins_at, moment.seconds)
            and (%(until)s::timestamptz is null or minute.begins_at < %(until)s::timestamptz)
        order by minute.begins_at, minute.seconds
        limit 1
    ) as next
)
select
    -- What ended in each step.
    --
    -- The length of a row's step: that which is wanted, or an hour if that is shorter.
    (extract(epoch from minute.begins_at)::bigint / greatest(minute.seconds, %(step)s::integer)) * greatest(minute.seconds, %(step)s::integer) as begins, greatest(minute.seconds, %(step)s::integer) as seconds,
    minute.queue_name, minute.task_name,
    sum(minute.succeeded)::bigint, sum(minute.failed)::bigint, sum(minute.cancelled)::bigint,
    sum(minute.aborted)::bigint, sum(minute.retried)::bigint,
    sum(minute.seconds_run)::float8, sum(minute.seconds_waited)::float8,
    -- The counts of all rows for each bucket of durations (`model/monitoring/minutes.py`, rule 1). By their places,
    -- because to unnest and to sum them took seven times as long.
    pg_catalog.to_json(array[
        coalesce(sum(minute.run_buckets[1]), 0), coalesce(sum(minute.run_buckets[2]), 0), coalesce(sum(minute.run_buckets[3]), 0), coalesce(sum(minute.run_buckets[4]), 0),
        coalesce(sum(minute.run_buckets[5]), 0), coalesce(sum(minute.run_buckets[6]), 0), coalesce(sum(minute.run_buckets[7]), 0), coalesce(sum(minute.run_buckets[8]), 0),
        coalesce(sum(minute.run_buckets[9]), 0), coalesce(sum(minute.run_buckets[10]), 0), coalesce(sum(minute.run_buckets[11]), 0), coalesce(sum(minute.run_buckets[12]), 0),
        coalesce(sum(minute.run_buckets[13]), 0), coalesce(sum(minute.run_buckets[14]), 0), coalesce(sum(minute.run_buckets[15]), 0), coalesce(sum(minute.run_buckets[16]), 0),
        coalesce(sum(minute.run_buckets[17]), 0), coalesce(sum(minute.run_buckets[18]), 0), coalesce(sum(minute.run_buckets[19]), 0), coalesce(sum(minute.run_buckets[20]), 0),
        coalesce(sum(minute.run_buckets[21]), 0), coalesce(sum(minute.run_buckets[22]), 0), coalesce(sum(minute.run_buckets[23]), 0), coalesce(sum(minute.run_buckets[24]), 0),
        coalesce(sum(minute.run_buckets[25]), 0), coalesce(sum(minute.run_buckets[26]), 0), coalesce(sum(minute.run_buckets[27]), 0), coalesce(sum(minute.run_buckets[28]), 0)
    ]::bigint[])::text,
    pg_catalog.to_json(array[
        coalesce(sum(minute.waited_buckets[1]), 0), coalesce(sum(minute.waited_buckets[2]), 0), coalesce(sum(minute.waited_buckets[3]), 0), coalesce(sum(minute.waited_buckets[4]), 0),
        coalesce(sum(minute.waited_buckets[5]), 0), coalesce(sum(minute.waited_buckets[6]), 0), coalesce(sum(minute.waited_buckets[7]), 0), coalesce(sum(minute.waited_buckets[8]), 0),
        coalesce(sum(minute.waited_buckets[9]), 0), coalesce(sum(minute.waited_buckets[10]), 0), coalesce(sum(minute.waited_buckets[11]), 0), coalesce(sum(minute.waited_buckets[12]), 0),
        coalesce(sum(minute.waited_buckets[13]), 0), coalesce(sum(minute.waited_buckets[14]), 0), coalesce(sum(minute.waited_buckets[15]), 0), coalesce(sum(minute.waited_buckets[16]), 0),
        coalesce(sum(minute.waited_buckets[17]), 0), coalesce(sum(minute.waited_buckets[18]), 0), coalesce(sum(minute.waited_buckets[19]), 0), coalesce(sum(minute.waited_buckets[20]), 0),
        coalesce(sum(minute.waited_buckets[21]), 0), coalesce(sum(minute.waited_buckets[22]), 0), coalesce(sum(minute.waited_buckets[23]), 0), coalesce(sum(minute.waited_buckets[24]), 0),
        coalesce(sum(minute.waited_buckets[25]), 0), coalesce(sum(minute.waited_buckets[26]), 0), coalesce(sum(minute.waited_buckets[27]), 0), coalesce(sum(minute.waited_buckets[28]), 0)
    ]::bigint[])::text
from moment
cross join lateral (
    select minute.*
    from procrastinate_minutes as minute
    where minute.begins_at = moment.begins_at and minute.seconds = moment.seconds
        and minute.queue_name = %(queue_name)s::text and minute.task_name = %(task_name)s::text
        and minute.partition = 0
    limit 1  -- so that each is looked up, whatever the statistics say: a hash join reads all rows
) as minute
group by 1, 2, 3, 4
