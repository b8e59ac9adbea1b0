-- name: prune_progress :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000.
-- settings: patience
-- Removes the reports of attempts that no worker has under way: theirs died, or could not remove them.
-- (`offset 0` and the CASE keep the planner from reading all jobs, or all that run with their dead
-- entries, instead of looking up by id those that have reported.)
delete from procrastinate_progress as progress
where progress.partition = %(partition)s::smallint and not exists (
    select from procrastinate_jobs as job
    where job.id = progress.job_id and job.partition = %(partition)s::smallint
        and case when job.status in ('doing') and job.lease = progress.lease then true else false end
    offset 0
)
