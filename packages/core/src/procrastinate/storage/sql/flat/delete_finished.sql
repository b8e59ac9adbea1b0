-- name: delete_finished :many
-- Removes jobs that ended, for workers that keep no history.
-- settings: patience
delete from procrastinate_jobs as job
using unnest(%(ids)s::bigint[], %(leases)s::integer[]) as ended(id, lease)
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
