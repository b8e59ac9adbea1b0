-- name: ready_queues :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- settings: prepared
-- Returns the names of all queues that have a ready job, by one index probe for each. (Not with
-- min(): PostgreSQL 15 then read the whole index of a table that was never analyzed.)
with recursive queue(name) as (
    select (
        select job.queue_name
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null
        order by job.queue_name
        limit 1
    )
    union all
    select (
        select job.queue_name
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.status = 'todo' and job.hold is null
            and job.queue_name > queue.name
        order by job.queue_name
        limit 1
    )
    from queue
    where queue.name is not null
)
select name from queue where name is not null
