-- name: pass_on_locks :many
-- The same for locks that may be free already, after a change by hand. It passes over jobs that
-- somebody else has in hand, because those who change jobs by hand hold some and may not wait for
-- others: whoever has them passes on in turn. Only where that one rolls back, or a claim
-- far behind the times is looking at them, is a line left for mend_lines.
with recursive line(lock, queue_name) as (
    select
        released.lock,
        (
            select job.queue_name
            from procrastinate_jobs as job
            where job.lock = released.lock and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
            order by job.queue_name
            limit 1
        )
    -- The planner takes an array that it cannot count to be short. For each of 500 locks that it
    -- counted it expected a hundred queues, and had the statement compiled.
    from unnest(array(select unnest(%(locks)s::text[]))) as released(lock)
    union all
    select
        line.lock,
        (
            select job.queue_name
            from procrastinate_jobs as job
            where job.lock = line.lock and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.queue_name > line.queue_name
            order by job.queue_name
            limit 1
        )
    from line
    where line.queue_name is not null
),
next as materialized (
    -- In the order in which all others lock waiting jobs, too.
    select best.id
    from (
        select line.lock, line.queue_name
        from line
        where line.queue_name is not null
        order by line.lock, line.queue_name
    ) as parking
    cross join lateral (
        select job.id
        from procrastinate_jobs as job
        where job.lock = parking.lock and job.queue_name = parking.queue_name
            and job.status = 'todo'
            and job.hold is distinct from 'schedule' and job.hold = 'lock'
        order by job.priority desc, job.id
        limit 1
        for update skip locked
    ) as best
),
passed as (
    update procrastinate_jobs as job
    set hold = null
    where job.partition = 0 and job.id = any(array(select next.id from next))
    returning job.queue_name
)
select passed.queue_name, pg_notify('procrastinate_jobs', passed.queue_name)::text
from passed
group by passed.queue_name
