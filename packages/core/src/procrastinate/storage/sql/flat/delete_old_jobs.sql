-- name: delete_old_jobs :one
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = off.
-- settings: in_order
-- Among the next jobs after an id, deletes those that ended longer ago than the age (microseconds)
-- that belongs to their status. Returns (how many, the last id, or null at the end). The end is
-- also reached with jobs that were deferred too recently to have ended so long ago, because ids
-- follow time.
--
-- kept: for each status, the time since which jobs are kept.
with kept as materialized (
    select
        age.status::procrastinate_job_status as status,
        statement_timestamp() - age.us::float8 * interval '1 microsecond' as since
    from unnest(%(statuses)s::text[], %(ages_us)s::bigint[]) as age(status, us)
),
-- walk: the next jobs after the id.
walk as materialized (
    select job.id, job.status, job.queue_name, job.deferred_at, job.finished_at
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id > %(after_id)s::bigint
    order by job.id
    limit %(scanned)s::integer
),
-- old: those of them that are too old, locked.
old as materialized (
    select job.id
    from procrastinate_jobs as job
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
    delete from procrastinate_jobs as job
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
