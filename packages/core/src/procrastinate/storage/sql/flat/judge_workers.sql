-- name: judge_workers :many
-- Returns (id, whether it was alone) for each of these workers that is dead. It was alone if it
-- held one job, and no other worker of its host died in the same moment. This is noted when it is
-- first found dead, because recover_jobs may take its jobs one by one. A worker that another
-- transaction has in hand is left to that one, and counts as not alone.
--
-- given: the workers, with the number of jobs that each holds.
with given as materialized (
    select given.id, given.held
    from unnest(%(worker_ids)s::bigint[], %(held)s::bigint[]) as given(id, held)
),
-- found: those that are found dead for the first time, locked; a live one has given a sign of life
-- since.
found as materialized (
    select
        worker.id,
        given.held = 1 and not exists (
            select from procrastinate_workers as other
            where other.partition = 0 and other.host = worker.host and other.id <> worker.id
                and other.last_heartbeat
                    between worker.last_heartbeat
                        - %(moment_us)s::bigint::float8 * interval '1 microsecond'
                    and worker.last_heartbeat
                        + %(moment_us)s::bigint::float8 * interval '1 microsecond'
        ) as alone
    from given
    join procrastinate_workers as worker on worker.id = given.id and worker.partition = 0
    where worker.alone is null
        and worker.last_heartbeat
            < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
    order by worker.id
    for update of worker skip locked
),
-- noted: the same, as they are now.
noted as (
    update procrastinate_workers as worker
    set alone = found.alone
    from found
    where worker.id = found.id and worker.partition = 0
    returning worker.id
)
select given.id, coalesce(found.alone, worker.alone, false)
from given
left join found on found.id = given.id
left join procrastinate_workers as worker
    on worker.id = given.id and worker.partition = 0
where worker.id is null
    or worker.last_heartbeat
        < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
