-- name: list_minutes :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns the same as sum_minutes by queue, by task, or by both: of all, or of one queue or task. By
-- both or by one of all, what ended of all of them comes too, with empty names.
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
from procrastinate_minutes as minute
where minute.partition = 0
    and minute.begins_at >= %(since)s::timestamptz
    and (%(until)s::timestamptz is null or minute.begins_at < %(until)s::timestamptz)
    and (%(queue_name)s::text is null or minute.queue_name = %(queue_name)s::text)
    and (%(task_name)s::text is null or minute.task_name = %(task_name)s::text)
    and (
        (
            (minute.queue_name <> '') = (%(of_queues)s::integer = 1)
            and (minute.task_name <> '') = (%(of_tasks)s::integer = 1)
        )
        or minute.queue_name = '' and minute.task_name = ''
    )
group by 1, 2, 3, 4
