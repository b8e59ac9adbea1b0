-- name: report_progress :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000, array_nulls = on, synchronous_commit = off.
-- settings: patience, array_nulls, asynchronous
-- Writes how far jobs are that this worker holds, each by its lease. The ages say, in microseconds,
-- how long before this statement that was said: the worker's clock is never compared with the server's.
insert into procrastinate_progress as progress (
    job_id, partition, lease, fraction, message, data, updated_at
)
select
    job.id, job.partition, job.lease, said.millionths::float8 / 1000000::float8, said.message,
    said.data::jsonb,
    statement_timestamp() - said.age_us::float8 * interval '1 microsecond'
from unnest(
    %(ids)s::bigint[], %(leases)s::integer[], %(millionths)s::integer[],
    %(messages)s::text[],
    %(data)s::text[],
    %(ages_us)s::bigint[]
) as said(id, lease, millionths, message, data, age_us)
join procrastinate_jobs as job on job.id = said.id
-- Jobs are looked up by id. The array hides how many there are: the planner expects ten ids and
-- uses the primary key. When it knew the number, it scanned small tables from end to end.
--
-- True if this worker holds the job, in a status from which a job may end (TRANSITIONS, a table of the
-- code, lists them). The CASE hides this from the planner, for two reasons. The index of running jobs
-- has a dead entry for each job that its worker has ended: with an old snapshot open elsewhere, the
-- ending of 20 jobs took 6.6 ms at first and 15 ms after 16,000 others (by id: 6 to 7 ms). And the
-- planner takes a CASE to match half of all rows: from the plain columns it expected one row, and chose
-- a nested loop over 250,000 pairs for 500 jobs.
where job.partition = %(partition)s::smallint and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[]))) and case
    when job.status in ('doing') and job.worker_id = %(worker_id)s::bigint then true
    else false
end and job.lease = said.lease
on conflict (job_id, partition) do update
set lease = excluded.lease, fraction = excluded.fraction, message = excluded.message,
    data = excluded.data, updated_at = excluded.updated_at
where progress.lease <= excluded.lease
