-- Many jobs by filter, one bounded batch at a time: see storage/bulk.py.

-- fragment: walk_any
-- The next jobs, whatever they are, and whether each matches: only so is the end of the scan
-- certain.
select job.id, ({>wanted}) as matching
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id > %(after_id)s::bigint
order by job.id
limit %(scanned)s::integer

-- fragment: walk_ended
-- The next jobs that failed, were cancelled or aborted, and whether each matches, by an index that
-- holds no others.
select found.id, found.matching
from pg_catalog.unnest(%(statuses)s::text[]) as ended(status)
cross join lateral (
    select job.id, ({>wanted}) as matching
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status in ('failed', 'cancelled', 'aborted')
        and job.status = ended.status::{schema}.procrastinate_job_status
        and job.id > %(after_id)s::bigint
    order by job.id
    limit %(scanned)s::integer
) as found
order by found.id
limit %(scanned)s::integer

-- fragment: walk_ids
-- The next of the jobs that are known by id, and whether each matches.
select job.id, ({>wanted}) as matching
from {schema}.procrastinate_jobs as job
where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[]) and job.id > %(after_id)s::bigint
order by job.id
limit %(scanned)s::integer

-- fragment: grip
-- walk: the next jobs after an id, as many as are looked at in one statement.
walk as materialized (
    {>sort}
),
-- matching: those of them that match, up to the limit.
matching as materialized (
    select walk.id from walk where walk.matching order by walk.id limit %(limit)s::integer
),
-- gripped: those of them that still match, locked in the order of their lines.
gripped as materialized (
    select job.id
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(array(select matching.id from matching))
        and {>wanted}
    order by job.lock, job.queue_name, job.priority desc, job.id
    for update{>busy}
)
select reached.last_id, matching.id, (gripped.id is not null)::integer
from (
    select case
        when (select count(*) from matching) = %(limit)s::integer
            then (select max(matching.id) from matching)
        when (select count(*) from walk) = %(scanned)s::integer
            then (select max(walk.id) from walk)
    end as last_id
) as reached
left join matching on true
left join gripped on gripped.id = matching.id
order by matching.id

-- name: grip_any :many
-- settings: in_order
-- Locks the matching ones among the next jobs after an id. Returns (where to go on after or null at
-- the end, id, 1 or 0 for one that another transaction has in hand) for each match, or one row
-- without an id.
with {>grip sort=walk_any busy=" skip locked"}

-- name: grip_ended :many
-- The same as grip_any, if only failed, cancelled and aborted jobs are wanted.
with {>grip sort=walk_ended busy=" skip locked"}

-- name: grip_ids :many
-- The same as grip_any, among jobs known by id.
with {>grip sort=walk_ids busy=" skip locked"}

-- name: grip_ids_when_free :many
-- The same as grip_any, among jobs known by id, waiting for the transactions that have them in hand.
with {>grip sort=walk_ids busy=""}

-- name: delete_old_jobs :one
-- settings: in_order
-- Among the next jobs after an id, deletes those that ended longer ago than the age (microseconds)
-- that belongs to their status. Returns (how many, the last id, or null at the end). The end is
-- also reached with jobs that were deferred too recently to have ended so long ago, because ids
-- follow time.
--
-- kept: for each status, the time since which jobs are kept.
with kept as materialized (
    select
        age.status::{schema}.procrastinate_job_status as status,
        statement_timestamp() - age.us::float8 * interval '1 microsecond' as since
    from unnest(%(statuses)s::text[], %(ages_us)s::bigint[]) as age(status, us)
),
-- walk: the next jobs after the id.
walk as materialized (
    select job.id, job.status, job.queue_name, job.deferred_at, job.finished_at
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id > %(after_id)s::bigint
    order by job.id
    limit %(scanned)s::integer
),
-- old: those of them that are too old, locked.
old as materialized (
    select job.id
    from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.status not in ('todo', 'doing')
        and job.id = any(array(
            select walk.id
            from walk
            join kept on kept.status = walk.status
            where walk.finished_at < kept.since
                and (%(queue_name)s::text is null or walk.queue_name = %(queue_name)s::text)
        ))
    for update skip locked
),
deleted as (
    delete from {schema}.procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(array(select old.id from old))
    returning job.id
)
select
    (select count(*) from deleted)::integer,
    (
        select last.id
        from (select walk.id, walk.deferred_at from walk order by walk.id desc limit 1) as last
        where last.deferred_at < (select max(kept.since) from kept)
            and (select count(*) from walk) = %(scanned)s::integer
    )
