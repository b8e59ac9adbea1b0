-- name: take_old_minutes :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000, synchronous_commit = off.
-- settings: patience, asynchronous
-- Takes away rows of minutes that are a day old, some at a time, and returns their sums by the hour:
-- `add_to_hours` in the same transaction keeps them. (A distributed database lets no INSERT stand
-- below a SELECT.) The first column is the number of rows that were taken.
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
)
select
    count(*)::integer, extract(epoch from taken.begins_at)::bigint / 3600 * 3600 as hour,
    taken.queue_name, taken.task_name, sum(taken.succeeded)::bigint, sum(taken.failed)::bigint,
    sum(taken.cancelled)::bigint, sum(taken.aborted)::bigint, sum(taken.retried)::bigint,
    (sum(taken.seconds_run) * 1000000::float8)::bigint,
    (sum(taken.seconds_waited) * 1000000::float8)::bigint,
    -- The counts of all rows for each bucket of durations (`model/monitoring/minutes.py`, rule 1). By their places,
    -- because to unnest and to sum them took seven times as long.
    array[
        coalesce(sum(taken.run_buckets[1]), 0), coalesce(sum(taken.run_buckets[2]), 0), coalesce(sum(taken.run_buckets[3]), 0), coalesce(sum(taken.run_buckets[4]), 0),
        coalesce(sum(taken.run_buckets[5]), 0), coalesce(sum(taken.run_buckets[6]), 0), coalesce(sum(taken.run_buckets[7]), 0), coalesce(sum(taken.run_buckets[8]), 0),
        coalesce(sum(taken.run_buckets[9]), 0), coalesce(sum(taken.run_buckets[10]), 0), coalesce(sum(taken.run_buckets[11]), 0), coalesce(sum(taken.run_buckets[12]), 0),
        coalesce(sum(taken.run_buckets[13]), 0), coalesce(sum(taken.run_buckets[14]), 0), coalesce(sum(taken.run_buckets[15]), 0), coalesce(sum(taken.run_buckets[16]), 0),
        coalesce(sum(taken.run_buckets[17]), 0), coalesce(sum(taken.run_buckets[18]), 0), coalesce(sum(taken.run_buckets[19]), 0), coalesce(sum(taken.run_buckets[20]), 0),
        coalesce(sum(taken.run_buckets[21]), 0), coalesce(sum(taken.run_buckets[22]), 0), coalesce(sum(taken.run_buckets[23]), 0), coalesce(sum(taken.run_buckets[24]), 0),
        coalesce(sum(taken.run_buckets[25]), 0), coalesce(sum(taken.run_buckets[26]), 0), coalesce(sum(taken.run_buckets[27]), 0), coalesce(sum(taken.run_buckets[28]), 0)
    ]::bigint[]::text,
    array[
        coalesce(sum(taken.waited_buckets[1]), 0), coalesce(sum(taken.waited_buckets[2]), 0), coalesce(sum(taken.waited_buckets[3]), 0), coalesce(sum(taken.waited_buckets[4]), 0),
        coalesce(sum(taken.waited_buckets[5]), 0), coalesce(sum(taken.waited_buckets[6]), 0), coalesce(sum(taken.waited_buckets[7]), 0), coalesce(sum(taken.waited_buckets[8]), 0),
        coalesce(sum(taken.waited_buckets[9]), 0), coalesce(sum(taken.waited_buckets[10]), 0), coalesce(sum(taken.waited_buckets[11]), 0), coalesce(sum(taken.waited_buckets[12]), 0),
        coalesce(sum(taken.waited_buckets[13]), 0), coalesce(sum(taken.waited_buckets[14]), 0), coalesce(sum(taken.waited_buckets[15]), 0), coalesce(sum(taken.waited_buckets[16]), 0),
        coalesce(sum(taken.waited_buckets[17]), 0), coalesce(sum(taken.waited_buckets[18]), 0), coalesce(sum(taken.waited_buckets[19]), 0), coalesce(sum(taken.waited_buckets[20]), 0),
        coalesce(sum(taken.waited_buckets[21]), 0), coalesce(sum(taken.waited_buckets[22]), 0), coalesce(sum(taken.waited_buckets[23]), 0), coalesce(sum(taken.waited_buckets[24]), 0),
        coalesce(sum(taken.waited_buckets[25]), 0), coalesce(sum(taken.waited_buckets[26]), 0), coalesce(sum(taken.waited_buckets[27]), 0), coalesce(sum(taken.waited_buckets[28]), 0)
    ]::bigint[]::text
from taken
group by hour, taken.queue_name, taken.task_name
