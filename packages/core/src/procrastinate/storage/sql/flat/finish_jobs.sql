-- name: finish_jobs :many
-- Writes that jobs have succeeded: most batches hold nothing else. The two ages say, in microseconds, how
-- long before this statement the attempt began and ended: the worker's clock is never compared with the
-- server's.
-- settings: patience
update procrastinate_jobs as job
set status = 'succeeded',
    started_at = statement_timestamp() - ended.began_us * interval '1 microsecond',
    finished_at = statement_timestamp() - ended.ended_us * interval '1 microsecond'
from unnest(
    %(ids)s::bigint[], %(leases)s::integer[], %(began_us)s::bigint[], %(ended_us)s::bigint[]
) as ended(id, lease, began_us, ended_us)
-- A list of unknown length, which the planner takes to be short: for one that it can count it read small
-- tables from end to end.
where job.partition = 0 and job.id = ended.id and job.id = any(array(select unnest(%(ids)s::bigint[])))
    -- Whether this worker holds the job; `sources` are the statuses that TRANSITIONS allows. Said as a CASE,
    -- which the planner takes to be true of every other row: from the columns' statistics it expected a single
    -- row, and joined 500 jobs with their 500 endings by looking at all 250,000 pairs.
    and case
        when job.status = any(%(sources)s::text[]::procrastinate_job_status[])
            and job.worker_id = %(worker_id)s::bigint then true
        else false
    end and job.lease = ended.lease
returning job.id
