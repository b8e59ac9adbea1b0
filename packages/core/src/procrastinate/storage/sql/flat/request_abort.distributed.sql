-- name: request_abort :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Asks the workers that run these jobs to abort them, and wakes those workers. Returns (id, empty
-- text) of the jobs.
--
-- running: the ids of those jobs that run, locked.
with running as materialized (
    select job.id
    from procrastinate_jobs as job
    where job.partition = %(partition)s::smallint and job.id = any(%(ids)s::bigint[]) and job.status::text = 'doing'
    order by job.id
    for update
),
-- asked: the same, marked.
asked as (
    update procrastinate_jobs as job
    set abort_requested = true
    where job.partition = %(partition)s::smallint and job.id = any(array(select running.id from running))
    returning job.id
)
select asked.id, null::text, 'procrastinate_aborts' as channel, asked.id::text as payload from asked
