-- name: add_to_hours :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000, array_nulls = on, synchronous_commit = off.
-- settings: patience, array_nulls, asynchronous
-- Adds the sums of minutes to the hours that they belong to, given in seconds since 1970.
--
-- What a caller has counted, in rows. In order, so that no two workers wait for each other in a circle.
insert into procrastinate_minutes as minute (
    begins_at, seconds, queue_name, task_name, partition, succeeded, failed, cancelled, aborted, retried,
    seconds_run, seconds_waited, run_buckets, waited_buckets
)
select
    pg_catalog.to_timestamp(said.hour), 3600, said.queue_name, said.task_name, 0, said.succeeded, said.failed,
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
