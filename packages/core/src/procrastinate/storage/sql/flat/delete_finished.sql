-- name: delete_finished :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000.
-- settings: patience
-- Removes jobs that ended, for workers that keep no history. Returns (id, 1 if anybody may wait for
-- one of them, else null) of those that it removed.
delete from procrastinate_jobs as job
using unnest(%(ids)s::bigint[], %(leases)s::integer[]) as ended(id, lease)
-- Jobs are looked up by id. The array hides how many there are: the planner expects ten ids and
-- uses the primary key. When it knew the number, it scanned small tables from end to end.
where job.partition = %(partition)s::smallint and job.id = ended.id and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
    -- True if this worker holds the job, in a status from which a job may end (TRANSITIONS, a table of the
    -- code, lists them). The CASE hides this from the planner, for two reasons. The index of running jobs
    -- has a dead entry for each job that its worker has ended: with an old snapshot open elsewhere, the
    -- ending of 20 jobs took 6.6 ms at first and 15 ms after 16,000 others (by id: 6 to 7 ms). And the
    -- planner takes a CASE to match half of all rows: from the plain columns it expected one row, and chose
    -- a nested loop over 250,000 pairs for 500 jobs.
    and case
        when job.status in ('doing') and job.worker_id = %(worker_id)s::bigint then true
        else false
    end and job.lease = ended.lease
-- 1 if anybody waits for the end of a job between the first and the last of these ids, else null. If so,
-- the worker sends `wake_waiters`, which finds out who waits for which. Most jobs are not waited for.
-- (It is one probe of an index, 3 % of what the ending of 100 jobs takes. To look for each id took
-- 9 %, and to notify here 19 %, of which half was planning.)
returning job.id, (
    select 1
    from procrastinate_waits as wait
    where wait.partition = %(partition)s::smallint
        and wait.job_id >= %(first_id)s::bigint and wait.job_id <= %(last_id)s::bigint
    limit 1
)
