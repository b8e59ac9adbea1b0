-- name: judge_workers :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Notes of each of these workers, when it is first found dead, whether it was alone: it held one
-- job, and no other worker of its host died in the same moment. (This is kept, because recover_jobs
-- may take its jobs one by one. A live worker has given a sign of life since.) A worker that another
-- transaction has in hand is left to that one. No statement that reads workers reads jobs as well,
-- because they stand in another place if the jobs are distributed.
update procrastinate_workers as worker
set alone = found.alone
from (
    -- found: those that are found dead for the first time, locked.
    select
        worker.id,
        given.held = 1 and not exists (
            select from procrastinate_workers as other
            where other.partition = 0 and other.id <> worker.id
                -- One that does not say its host, as its row was entered anew, may be of any.
                and coalesce(other.host = worker.host, true)
                and other.last_heartbeat
                    between worker.last_heartbeat
                        - %(moment_us)s::bigint::float8 * interval '1 microsecond'
                    and worker.last_heartbeat
                        + %(moment_us)s::bigint::float8 * interval '1 microsecond'
        ) as alone
    from unnest(%(worker_ids)s::bigint[], %(held)s::bigint[]) as given(id, held)
    join procrastinate_workers as worker on worker.id = given.id and worker.partition = 0
    where worker.alone is null
        and worker.last_heartbeat
            < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
    order by worker.id
    for update of worker skip locked
) as found
where worker.id = found.id and worker.partition = 0
