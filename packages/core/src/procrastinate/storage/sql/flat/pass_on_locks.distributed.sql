-- name: pass_on_locks :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- The same as release_locks, for locks that may be free already, after a change by hand: it gives up
-- none. It passes over jobs that another transaction has in hand: it holds some itself, so it may not
-- wait. The other transaction passes on in its turn. If that rolls back, or was a claim with an old
-- snapshot, the line is left for idle_lines.
--
-- line: each queue that has parked jobs of these locks, from queue to queue, by one index probe for
-- each.
with recursive line(lock, queue_name) as (
    select
        released.lock,
        (
            select job.queue_name
            from procrastinate_jobs as job
            -- The condition with to_tsvector is true of every job with a lock. It is only there to make the planner
            -- take the index of lines: that index's own condition implies it, so with that index it costs nothing,
            -- and with any other, to_tsvector looks dear. (The planner expects a single row of each index that was
            -- never analyzed, and read all ready jobs for each lock. A claim of 500 jobs of 20,000 took 700 ms
            -- instead of 9.)
            where job.partition = %(partition)s::smallint and job.lock = released.lock and (job.lock is not null
                or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
            order by job.queue_name
            limit 1
        )
    -- The planner takes an array that it cannot count to be short. For each of 500 locks that it
    -- counted it expected a hundred queues, and had the statement compiled.
    from pg_catalog.unnest(array(select pg_catalog.unnest(%(locks)s::text[]))) as released(lock)
    union all
    select
        line.lock,
        (
            select job.queue_name
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.lock = line.lock and (job.lock is not null
                or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                and job.status = 'todo'
                and job.hold is distinct from 'schedule' and job.hold = 'lock'
                and job.queue_name > line.queue_name
            order by job.queue_name
            limit 1
        )
    from line
    where line.queue_name is not null
),
-- next: the best parked job of each of these queues, locked in the order in which every statement
-- locks jobs that wait.
next as materialized (
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
        where job.partition = %(partition)s::smallint and job.lock = parking.lock and (job.lock is not null
            or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
            and job.queue_name = parking.queue_name and job.status = 'todo'
            and job.hold is distinct from 'schedule' and job.hold = 'lock'
        order by job.priority desc, job.id
        limit 1
        for update skip locked
    ) as best
),
-- passed: the same jobs, ready now.
passed as (
    update procrastinate_jobs as job
    set hold = null
    where job.partition = %(partition)s::smallint and job.id = any(array(select next.id from next))
    returning job.queue_name
)
-- Workers listen on the coordinator, so a node cannot wake them. It returns whom to wake, and with what.
--
-- What a notification of a distributed database says: the queue of a job, and its partition.
select passed.queue_name, null::text, 'procrastinate_jobs' as channel, passed.queue_name || '@'::text || %(partition)s::smallint::text as payload
from passed
group by passed.queue_name
