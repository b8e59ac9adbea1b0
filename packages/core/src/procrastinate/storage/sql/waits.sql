-- Waiting for the ends of jobs. A process that waits has a row for each job that it waits for, by a
-- number that it has drawn at random; the statements that end jobs notify it. They write nothing
-- here. All ids of a statement are in one partition.

-- name: register_waits :exec
-- settings: prepared
-- Enters that a process waits for these jobs, or that it still does.
insert into {schema}.procrastinate_waits as wait (job_id, partition, waiter, expires_at)
select
    given.id, given.partition, %(waiter)s::bigint,
    statement_timestamp() + %(lasting_us)s::bigint::float8 * interval '1 microsecond'
from {>given_jobs}
on conflict (job_id, partition, waiter) do update set expires_at = excluded.expires_at

-- fragment: given_jobs
(
    select one.id, %(partition)s::smallint as partition
    from pg_catalog.unnest(%(ids)s::bigint[]) as one(id)
) as given

-- distributed fragment: given_jobs
-- The rows of the jobs, because the node that has them is the one for the new rows. What the
-- coordinator has itself, it would send there in several steps.
(
    select job.id, job.partition
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and {>by_id}
) as given

-- name: remove_waits :exec
-- settings: prepared
-- Removes the rows of a process for these jobs.
delete from {schema}.procrastinate_waits as wait
where wait.partition = %(partition)s::smallint and wait.waiter = %(waiter)s::bigint
    and wait.job_id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))

-- name: look_at_jobs :many
-- settings: prepared
-- Returns (id, status) of those of these jobs that are there.
select job.id, job.status::text
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and {>by_id}

-- name: any_expired_waits :many
-- settings: one_connection
-- Returns the partitions that have rows of processes that went away without removing them.
select distinct wait.partition
from {schema}.procrastinate_waits as wait
where {>of_any_wait} and wait.expires_at < statement_timestamp()

-- fragment: of_any_wait
wait.partition = %(partition)s::smallint

-- distributed fragment: of_any_wait
wait.partition = any(%(partitions)s::smallint[])

-- name: prune_waits :exec
-- Removes these rows from a partition.
delete from {schema}.procrastinate_waits as wait
where wait.partition = %(partition)s::smallint and wait.expires_at < statement_timestamp()
