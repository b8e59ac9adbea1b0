-- name: delete_ended :exec
-- Removes jobs that a statement before this one, in the same transaction, has ended although they
-- were to go back to the queue: for workers that keep nothing. (A statement of its own, as such jobs
-- are few: nothing is paid for them where there are none.)
delete from procrastinate_jobs as job
-- A list of unknown length, which the planner takes to be short: for one that it can count it read small
-- tables from end to end.
where job.partition = 0 and job.id = any(array(select unnest(%(ids)s::bigint[]))) and job.status::text not in ('todo', 'doing')
