-- name: get_job :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, and on a Citus cluster with
--     citus.max_adaptive_executor_pool_size = 1.
-- settings: one_connection
-- Returns one job, or no row.
--
-- All that is shown of a job.
--
-- What the worker lacks of a job that it has just got. The claim's time is the same for all jobs,
-- so it stands in the first row.
select job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
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
-- In a statement that locks no row, the jobs of all partitions, unless one is named.
where job.id = %(id)s::bigint and job.partition = any(%(partitions)s::smallint[])
