-- name: delete_finished :many
-- settings: patience
-- Removes jobs that ended, for workers that keep no history. Returns the ids that it removed.
delete from procrastinate_jobs as job
using unnest(%(ids)s::bigint[], %(leases)s::integer[]) as ended(id, lease)
-- Jobs are looked up by id. The list has an unknown length, so the planner takes it to be short: if
-- it could count the ids, it read small tables from end to end.
where job.partition = %(partition)s::smallint and job.id = ended.id and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
    -- True if this worker holds the job, in a status from which TRANSITIONS let it end. The CASE
    -- keeps the planner from two mistakes. It cannot use the index of running jobs, where every job
    -- that its worker has ended leaves a dead entry: with an old snapshot open elsewhere, the ending of
    -- 20 jobs took 6.6 ms at first and 15 ms after 16,000 others (by id: 6 to 7 ms). And it takes the
    -- CASE to be true of every other row: from the columns' statistics it expected a single row, and
    -- joined 500 jobs with their 500 endings by looking at all 250,000 pairs.
    and case
        when job.status in ('doing') and job.worker_id = %(worker_id)s::bigint then true
        else false
    end and job.lease = ended.lease
returning job.id
