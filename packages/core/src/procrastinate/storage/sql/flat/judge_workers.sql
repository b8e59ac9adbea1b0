-- name: judge_workers :exec
-- Notes of each dead worker, when it is first found dead, whether it was alone: it held one job,
-- and no other worker of its host died in the same moment. (This is kept, because recover_jobs may
-- take its jobs one by one.) A worker that another transaction has in hand is left to that one.
--
-- dead: the workers that are found dead for the first time; a live one has given a sign of life
-- since.
with dead as materialized (
    select worker.id, worker.host, worker.last_heartbeat
    from procrastinate_workers as worker
    where worker.partition = 0 and worker.alone is null
        and worker.last_heartbeat
            < statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
    order by worker.id
    for update skip locked
)
update procrastinate_workers as worker
set alone = (
        select count(*)
        from (
            select job.id
            from procrastinate_jobs as job
            where job.partition = %(partition)s::smallint and job.status = 'doing' and job.worker_id = dead.id
            limit 2
        ) as held
    ) = 1
    and not exists (
        select from procrastinate_workers as other
        where other.partition = 0 and other.host = dead.host and other.id <> dead.id
            and other.last_heartbeat
                between dead.last_heartbeat
                    - %(moment_us)s::bigint::float8 * interval '1 microsecond'
                and dead.last_heartbeat
                    + %(moment_us)s::bigint::float8 * interval '1 microsecond'
    )
from dead
where worker.id = dead.id and worker.partition = 0
