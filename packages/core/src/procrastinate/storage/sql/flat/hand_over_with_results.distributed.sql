-- name: hand_over_with_results :many
-- This is its text for a distributed database.
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on, lock_timeout = 500,
--     idle_in_transaction_session_timeout = 10000, plan_cache_mode = force_generic_plan,
--     enable_seqscan = off, array_nulls = on.
-- {known} stands for nothing, or for: and job.task_name <> all(%(unknown_names)s::text[])
-- {unpaused best} stands for nothing, or for:
--     and best.queue_name <> all(%(paused)s::text[])
--     and (best.queue_name = 'builtin' or '*' <> all(%(paused)s::text[]))
-- (A pause of all queues, '*', spares the queue builtin.)
-- settings: patience, prepared, array_nulls
-- The same as hand_over, and keeps what tasks returned, or why that is not kept.
--
-- leaving: those of the jobs that this worker holds, locked.
with leaving as materialized (
    -- (One by one: if the planner had never seen many jobs, it compared each of 50 with each.)
    select
        held.id, held.lock,
        statement_timestamp() - said.began_us::float8 * interval '1 microsecond' as began,
        statement_timestamp() - said.ended_us::float8 * interval '1 microsecond' as ended, said.result::jsonb as result, said.result_error
    -- What is set in front of a statement stays with the coordinator, and it is a node that waits here.
    -- So the limit is set in the statement: for the rest of the transaction, as the one in front of it.
    from (
        select pg_catalog.set_config('lock_timeout', %(lock_timeout)s::text, true)
    ) as patience
    cross join unnest(
        -- What tasks returned, as JSON, and why that is not kept; both null if it was not to be kept. (A null
        -- array is filled up with nulls.) The results are one text, in which the control character 30 separates
        -- them: it stands in no JSON. As the text of an array each would be quoted by the worker and read
        -- character by character here, a fifth of what a result of 200 bytes costs both.
        --
        -- A list in which some are null comes as JSON. (As the text of an array, a null is another text where a role
        -- has array_nulls off. What is set in front of a statement stays with the coordinator.)
        %(ids)s::bigint[], %(leases)s::integer[], %(began_us)s::bigint[], %(ended_us)s::bigint[], string_to_array(%(results)s::text, chr(30), ''::text), array(select each::text from pg_catalog.jsonb_array_elements_text(%(result_errors)s::text::jsonb) as each)
    ) as said(id, lease, began_us, ended_us, result, result_error)
    cross join lateral (
        select job.id, job.lock
        from procrastinate_jobs as job
        -- True if this worker holds the job, in a status from which a job may end (TRANSITIONS, a table of the
        -- code, lists them). The CASE hides this from the planner, for two reasons. The index of running jobs
        -- has a dead entry for each job that its worker has ended: with an old snapshot open elsewhere, the
        -- ending of 20 jobs took 6.6 ms at first and 15 ms after 16,000 others (by id: 6 to 7 ms). And the
        -- planner takes a CASE to match half of all rows: from the plain columns it expected one row, and chose
        -- a nested loop over 250,000 pairs for 500 jobs.
        where job.partition = %(partition)s::smallint and job.id = said.id and case
            when job.status in ('doing') and job.worker_id = %(worker_id)s::bigint then true
            else false
        end
            and job.lease = said.lease
        for update
    ) as held
),
-- slot: the slots that these jobs hold, locked.
slot as materialized (
    select held.lock, held.job_id
    from procrastinate_locks as held
    where held.partition = %(partition)s::smallint
        and held.job_id = any(array(select leaving.id from leaving))
    order by held.lock
    for update
),
-- head: the first job of each slot's line, if its queue is served. If it is another worker's to take,
-- the line must not go on without it: a worker that has always a next job would keep the line for ever.
head as materialized (
    select first.id, first.priority, first.queue_name, contended.lock, contended.job_id
    from slot as contended
    cross join lateral (
        -- The first job of a line, ready or parked. Jobs of paused queues do not hold up the others: they
        -- keep their places, and are passed on like all.
        with recursive ready as (
            -- The best job of the line in each queue, from queue to queue, by one index probe for each.
            -- (Ordered by the hold as well, because the planner does not see that it is the same everywhere. And
            -- `distinct from 'schedule'` is in the condition of the index: without it, the planner cannot use that.)
            (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                -- The condition with to_tsvector is true of every job with a lock. It is only there to make the planner
                -- take the index of lines: that index's own condition implies it, so with that index it costs nothing,
                -- and with any other, to_tsvector looks dear. (The planner expects a single row of each index that was
                -- never analyzed, and read all ready jobs for each lock. A claim of 500 jobs of 20,000 took 700 ms
                -- instead of 9.)
                where job.partition = %(partition)s::smallint and job.lock = contended.lock and (job.lock is not null
                    or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                    and job.status = 'todo'
                    and job.hold is distinct from 'schedule' and job.hold is null
                order by job.hold, job.queue_name, job.priority desc, job.id
                limit 1
            )
            union all
            select following.id, following.priority, following.queue_name
            from ready as before
            cross join lateral (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                where job.partition = %(partition)s::smallint and job.lock = contended.lock and (job.lock is not null
                    or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                    and job.queue_name > before.queue_name and job.status = 'todo'
                    and job.hold is distinct from 'schedule' and job.hold is null
                order by job.hold, job.queue_name, job.priority desc, job.id
                limit 1
            ) as following
        ),
        parking as (
            (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                where job.partition = %(partition)s::smallint and job.lock = contended.lock and (job.lock is not null
                    or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                    and job.status = 'todo'
                    and job.hold is distinct from 'schedule' and job.hold = 'lock'
                order by job.hold, job.queue_name, job.priority desc, job.id
                limit 1
            )
            union all
            select following.id, following.priority, following.queue_name
            from parking as before
            cross join lateral (
                select job.id, job.priority, job.queue_name
                from procrastinate_jobs as job
                where job.partition = %(partition)s::smallint and job.lock = contended.lock and (job.lock is not null
                    or pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig, job.lock) is null)
                    and job.queue_name > before.queue_name and job.status = 'todo'
                    and job.hold is distinct from 'schedule' and job.hold = 'lock'
                order by job.hold, job.queue_name, job.priority desc, job.id
                limit 1
            ) as following
        )
        select best.id, best.priority, best.queue_name, best.is_ready
        from (
            select ready.*, true as is_ready from ready
            union all
            select parking.*, false from parking
        ) as best
        where true{unpaused best}
        order by best.priority desc, best.id
        limit 1
    ) as first
    where %(served)s::text[] is null or first.queue_name = any(%(served)s::text[])
),
-- next: the heads that begin now, locked in order, and the jobs in whose place they do. (The texts
-- of status and hold: no partial index must be used to look for ids.)
next as materialized (
    select got.id, head.lock, head.job_id
    from (
        select head.id, head.priority, head.queue_name, head.lock, head.job_id
        from head
        order by head.priority desc, head.id
    ) as head
    cross join lateral (
        select job.id
        from procrastinate_jobs as job
        where job.partition = %(partition)s::smallint and job.id = head.id
            and job.status::text = 'todo' and job.hold::text is distinct from 'schedule'{known}
            and job.lock = head.lock and job.queue_name = head.queue_name
            and job.priority = head.priority
        for update skip locked
    ) as got
    limit %(limit)s::integer
),
-- finished: the jobs whose slots go to others.
finished as (
    update procrastinate_jobs as job
    set status = 'succeeded', started_at = leaving.began, finished_at = leaving.ended, result = leaving.result, result_error = leaving.result_error
    from leaving
    where job.partition = %(partition)s::smallint and job.id = leaving.id
        and job.id = any(array(select next.job_id from next))
    returning job.id
),
-- handed: the same slots, which the next jobs hold now.
handed as (
    update procrastinate_locks as held
    set job_id = next.id
    from next
    where held.partition = %(partition)s::smallint and held.lock = next.lock
),
-- claimed: the next jobs, which the worker holds now.
claimed as (
    update procrastinate_jobs as job
    set hold = null,
        -- (The limits: a row that was changed by hand keeps no other from being claimed.)
        status = 'doing',
            worker_id = %(worker_id)s::bigint,
            attempts = least(greatest(job.attempts, 0), 2147483646) + 1,
            lease = least(job.lease, 2147483646) + 1,
            started_at = statement_timestamp(),
            finished_at = null
    where job.partition = %(partition)s::smallint
        and job.id = any(array(select next.id from next))
    -- What the worker lacks of a job that it has just got. The claim's time is the same for all jobs,
    -- so it stands in the first row.
    returning job.id, job.queue_name, job.task_name, job.args::text as args, job.priority, job.lock,
        job.queueing_lock, job.attempts,
        -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
        -- single row from before it, or without it, would keep all others from being read. (CASE, because
        -- `greatest` passes over a null.)
        case when job.deferred_at is not null then
            least(greatest(job.deferred_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
        end as deferred_at,
        case when job.scheduled_at is not null then
            least(greatest(job.scheduled_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
        end as scheduled_at,
        job.lease, nullif(job.crashes, 0) as crashes, job.meta::text as meta
)
select claimed.*, null::integer as awaited, null::bigint as moment_us
from claimed
union all
select
    finished.id, null, null, null, null, null, null, null, null, null, null, null, null,
    -- 1 if anybody waits for the end of a job between the first and the last of these ids, else null. If so,
    -- the worker sends `wake_waiters`, which finds out who waits for which. Most jobs are not waited for.
    -- (It is one probe of an index, 3 % of what the ending of 100 jobs takes. To look for each id took
    -- 9 %, and to notify here 19 %, of which half was planning.)
    (
        select 1
        from procrastinate_waits as wait
        where wait.partition = %(partition)s::smallint
            and wait.job_id >= %(first_id)s::bigint and wait.job_id <= %(last_id)s::bigint
        limit 1
    ), (extract(epoch from statement_timestamp()) * 1000000.0)::bigint
from finished
order by priority desc, id
