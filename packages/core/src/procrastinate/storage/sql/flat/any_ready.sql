-- name: any_ready :one
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off.
-- {known} stands for nothing, or for: and job.task_name <> all(%(unknown_names)s::text[])
-- settings: prepared
-- Returns whether a job is ready, after a claim that saw none: another transaction was just
-- deciding about it. (Each claim would be planned for 0.2 ms longer if it answered this itself.) In
-- order, so that no plan reads the whole table in search of any job.
select exists (
    select
    from pg_catalog.unnest(%(queue_names)s::text[]) as scanned(queue_name)
    cross join lateral (
        select job.id
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.queue_name = scanned.queue_name
            and job.status = 'todo' and job.hold is null{known}
        order by job.priority desc, job.id
        limit 1
    ) as locked_by_another
)::integer
