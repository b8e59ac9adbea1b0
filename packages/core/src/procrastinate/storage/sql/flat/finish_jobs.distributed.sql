-- name: finish_jobs :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- settings: patience, prepared
-- Writes that jobs have succeeded; most batches hold nothing else. Returns (id, 1 if anybody may wait
-- for one of them, else null) of those that it changed. The two ages say, in microseconds, how long
-- before this statement the attempt began and ended: the worker's clock is never compared with the
-- server's.
--
-- ended: the jobs. (A distributed database takes no other table in RETURNING.)
with ended as (
    update procrastinate_jobs as job
    set status = 'succeeded', started_at = ended.began, finished_at = ended.ended
    from (
        -- `offset 0` keeps the times from being computed in SET: a distributed database refuses that.
        select
            said.id, said.lease,
            statement_timestamp() - said.began_us::float8 * interval '1 microsecond' as began,
            statement_timestamp() - said.ended_us::float8 * interval '1 microsecond' as ended
        -- What is set in front of a statement stays with the coordinator, and it is a node that waits here.
        -- So the limit is set in the statement: for the rest of the transaction, as the one in front of it.
        from (
            select pg_catalog.set_config('lock_timeout', %(lock_timeout)s::text, true)
        ) as patience
        cross join unnest(
            %(ids)s::bigint[], %(leases)s::integer[], %(began_us)s::bigint[], %(ended_us)s::bigint[]
        ) as said(id, lease, began_us, ended_us)
        offset 0
    ) as ended
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
    returning job.id
)
-- 1 if anybody waits for the end of a job between the first and the last of these ids, else null. If so,
-- the worker sends `wake_waiters`, which finds out who waits for which. Most jobs are not waited for.
-- (It is one probe of an index, 3 % of what the ending of 100 jobs takes. To look for each id took
-- 9 %, and to notify here 19 %, of which half was planning.)
select ended.id, (
    select 1
    from procrastinate_waits as wait
    where wait.partition = %(partition)s::smallint
        and wait.job_id >= %(first_id)s::bigint and wait.job_id <= %(last_id)s::bigint
    limit 1
) from ended
