-- name: read_jobs :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- settings: prepared
-- Returns (id, status, and all that is shown) of those of these jobs that are there.
--
-- All that is shown of a job.
--
-- What the worker lacks of a job that it has just got. The claim's time is the same for all jobs,
-- so it stands in the first row.
select job.id, job.status::text, job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
    job.queueing_lock, job.attempts,
    -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
    -- single row from before it, or without it, would keep all others from being read. (CASE, because
    -- `greatest` passes over a null.)
    case when job.deferred_at is not null then
        least(greatest(job.deferred_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end as deferred_at,
    case when job.scheduled_at is not null then
        least(greatest(job.scheduled_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end as scheduled_at,
    job.lease, nullif(job.crashes, 0) as crashes, job.meta::text as meta, job.errors::text as errors, job.status::text as status,
    case when job.started_at is not null then
        least(greatest(job.started_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end as started_at,
    case when job.finished_at is not null then
        least(greatest(job.finished_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end as finished_at, job.worker_id,
    job.result::text as result, job.result_error, job.hold::text as hold,
    case when coalesce(job.first_started_at, job.started_at) is not null then
        least(greatest(coalesce(job.first_started_at, job.started_at), '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end as first_started_at
from procrastinate_jobs as job
-- Jobs are looked up by id. The array hides how many there are: the planner expects ten ids and
-- uses the primary key. When it knew the number, it scanned small tables from end to end.
where job.partition = %(partition)s::smallint and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
