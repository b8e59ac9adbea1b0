-- name: delete_ended :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Removes jobs that an earlier statement of the same transaction has ended although they were to go
-- back to the queue, for workers that keep nothing. (Such jobs are few: a statement of its own
-- costs nothing if there are none.)
delete from procrastinate_jobs as job
-- Jobs are looked up by id. The array hides how many there are: the planner expects ten ids and
-- uses the primary key. When it knew the number, it scanned small tables from end to end.
where job.partition = %(partition)s::smallint and job.id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
    and case when job.status in ('todo', 'doing') then false else true end
