-- What ended in each minute, and after a day in each hour, by queue and task. Workers add to the rows
-- of a minute, each once for itself. On a distributed database the table is on the coordinator.
--
-- A name that is empty stands for all: there are rows for each queue, for each task, and for all
-- together (`model/monitoring/minutes.py`, rule 4).

-- fragment: bucket_sums
-- The counts of all rows for each bucket of durations (`model/monitoring/minutes.py`, rule 1). By their places,
-- because to unnest and to sum them took seven times as long.
array[
    coalesce(sum({>of}[1]), 0), coalesce(sum({>of}[2]), 0), coalesce(sum({>of}[3]), 0), coalesce(sum({>of}[4]), 0),
    coalesce(sum({>of}[5]), 0), coalesce(sum({>of}[6]), 0), coalesce(sum({>of}[7]), 0), coalesce(sum({>of}[8]), 0),
    coalesce(sum({>of}[9]), 0), coalesce(sum({>of}[10]), 0), coalesce(sum({>of}[11]), 0), coalesce(sum({>of}[12]), 0),
    coalesce(sum({>of}[13]), 0), coalesce(sum({>of}[14]), 0), coalesce(sum({>of}[15]), 0), coalesce(sum({>of}[16]), 0),
    coalesce(sum({>of}[17]), 0), coalesce(sum({>of}[18]), 0), coalesce(sum({>of}[19]), 0), coalesce(sum({>of}[20]), 0),
    coalesce(sum({>of}[21]), 0), coalesce(sum({>of}[22]), 0), coalesce(sum({>of}[23]), 0), coalesce(sum({>of}[24]), 0),
    coalesce(sum({>of}[25]), 0), coalesce(sum({>of}[26]), 0), coalesce(sum({>of}[27]), 0), coalesce(sum({>of}[28]), 0)
]::bigint[]

-- fragment: buckets_of_both
-- The counts of a row and of what is added to it, for each bucket of durations.
(
    select pg_catalog.array_agg(coalesce(here.count, 0) + coalesce(here.more, 0) order by here.place)
    from unnest(minute.{>buckets}, excluded.{>buckets}) with ordinality as here(count, more, place)
)

-- fragment: to_what_is_there
-- Adds to the rows that are there.
on conflict (begins_at, seconds, queue_name, task_name, partition) do update
set succeeded = minute.succeeded + excluded.succeeded,
    failed = minute.failed + excluded.failed,
    cancelled = minute.cancelled + excluded.cancelled,
    aborted = minute.aborted + excluded.aborted,
    retried = minute.retried + excluded.retried,
    seconds_run = minute.seconds_run + excluded.seconds_run,
    seconds_waited = minute.seconds_waited + excluded.seconds_waited,
    run_buckets = {>buckets_of_both buckets="run_buckets"},
    waited_buckets = {>buckets_of_both buckets="waited_buckets"}

-- fragment: counted
-- What a caller has counted, in rows. In order, so that no two workers wait for each other in a circle.
insert into {schema}.procrastinate_minutes as minute (
    begins_at, seconds, queue_name, task_name, partition, succeeded, failed, cancelled, aborted, retried,
    seconds_run, seconds_waited, run_buckets, waited_buckets
)
select
    {>begins}, {>seconds}, said.queue_name, said.task_name, 0, said.succeeded, said.failed,
    said.cancelled, said.aborted, said.retried, said.run_us::float8 / 1000000::float8,
    said.waited_us::float8 / 1000000::float8, said.run_buckets::bigint[], said.waited_buckets::bigint[]
from unnest(
    %(hours)s::bigint[], %(queue_names)s::text[], %(task_names)s::text[], %(succeeded)s::bigint[],
    %(failed)s::bigint[], %(cancelled)s::bigint[], %(aborted)s::bigint[], %(retried)s::bigint[],
    %(run_us)s::bigint[], %(waited_us)s::bigint[], %(run_buckets)s::text[], %(waited_buckets)s::text[]
) as said(
    hour, queue_name, task_name, succeeded, failed, cancelled, aborted, retried, run_us, waited_us,
    run_buckets, waited_buckets
)
order by said.hour, said.queue_name, said.task_name
{>to_what_is_there}

-- fragment: minute_ago
-- The minute of the server's clock that was so long ago.
pg_catalog.date_bin(
    interval '1 minute',
    statement_timestamp() - %(age_us)s::bigint::float8 * interval '1 microsecond',
    '2000-01-01 00:00+00'::timestamptz
)

-- name: add_to_minute :exec
-- settings: patience, array_nulls, asynchronous
-- Adds what a worker has counted in one minute: that of the server's clock this many microseconds
-- ago.
{>counted begins=minute_ago seconds="60"}

-- name: add_to_hours :exec
-- settings: patience, array_nulls, asynchronous
-- Adds the sums of minutes to the hours that they belong to, given in seconds since 1970.
{>counted begins="pg_catalog.to_timestamp(said.hour)" seconds="3600"}

-- fragment: step
-- The length of a row's step: that which is wanted, or an hour if that is shorter.
greatest(minute.seconds, %(step)s::integer)

-- fragment: of_steps
-- What ended in each step.
(extract(epoch from minute.begins_at)::bigint / {>step}) * {>step} as begins, {>step} as seconds,
minute.queue_name, minute.task_name,
sum(minute.succeeded)::bigint, sum(minute.failed)::bigint, sum(minute.cancelled)::bigint,
sum(minute.aborted)::bigint, sum(minute.retried)::bigint,
sum(minute.seconds_run)::float8, sum(minute.seconds_waited)::float8,
pg_catalog.to_json({>bucket_sums of="minute.run_buckets"})::text,
pg_catalog.to_json({>bucket_sums of="minute.waited_buckets"})::text

-- fragment: first_moment
-- The first of the minutes and hours of which there are rows.
select minute.begins_at, minute.seconds
from {schema}.procrastinate_minutes as minute
where {>after}
    and (%(until)s::timestamptz is null or minute.begins_at < %(until)s::timestamptz)
order by minute.begins_at, minute.seconds
limit 1

-- name: sum_minutes :many
-- Returns what ended of one queue, of one task, of a task in a queue, or (both names are empty) of
-- all, in a time, in steps of some seconds. What is kept by the hour comes in hours if the steps are
-- shorter. It goes from minute to minute by the index, and reads two entries of it for each, however
-- many queues and tasks there are: a day in 20 ms with 1,000 of them, for which reading all rows of
-- the day took seconds.
with recursive moment as (
    (
        {>first_moment after="minute.begins_at >= %(since)s::timestamptz"}
    )
    union all
    select next.begins_at, next.seconds
    from moment
    cross join lateral (
        {>first_moment after="(minute.begins_at, minute.seconds) > (moment.begins_at, moment.seconds)"}
    ) as next
)
select
    {>of_steps}
from moment
cross join lateral (
    select minute.*
    from {schema}.procrastinate_minutes as minute
    where minute.begins_at = moment.begins_at and minute.seconds = moment.seconds
        and minute.queue_name = %(queue_name)s::text and minute.task_name = %(task_name)s::text
        and minute.partition = 0
    limit 1  -- so that each is looked up, whatever the statistics say: a hash join reads all rows
) as minute
group by 1, 2, 3, 4

-- name: list_minutes :many
-- Returns the same as sum_minutes by queue, by task, or by both: of all, or of one queue or task. By
-- both or by one of all, what ended of all of them comes too, with empty names.
select
    {>of_steps}
from {schema}.procrastinate_minutes as minute
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

-- name: take_old_minutes :many
-- settings: patience, asynchronous
-- Takes away rows of minutes that are a day old, some at a time, and returns their sums by the hour:
-- `add_to_hours` in the same transaction keeps them. (A distributed database lets no INSERT stand
-- below a SELECT.) The first column is the number of rows that were taken.
with old as materialized (
    select minute.begins_at, minute.queue_name, minute.task_name
    from {schema}.procrastinate_minutes as minute
    where minute.partition = 0 and minute.seconds = 60
        and minute.begins_at < pg_catalog.date_bin(
            interval '1 hour', statement_timestamp(), '2000-01-01 00:00+00'::timestamptz
        ) - interval '1 day'
    order by minute.begins_at, minute.queue_name, minute.task_name
    limit %(limit)s::integer
    for update skip locked
),
taken as (
    delete from {schema}.procrastinate_minutes as minute
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
    {>bucket_sums of="taken.run_buckets"}::text,
    {>bucket_sums of="taken.waited_buckets"}::text
from taken
group by hour, taken.queue_name, taken.task_name

-- name: prune_minutes :exec
-- settings: patience, asynchronous
-- Removes what ended longer ago than that.
delete from {schema}.procrastinate_minutes as minute
where minute.partition = 0
    and minute.begins_at < statement_timestamp()
        - %(keep_us)s::bigint::float8 * interval '1 microsecond'
