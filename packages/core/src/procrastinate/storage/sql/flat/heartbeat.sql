-- name: heartbeat :one
-- Says that the worker is alive. Returns (reborn, rank, live, now). `reborn` is true if the worker
-- had been taken for dead and its row removed. `live` counts the live workers, this one included,
-- and `rank` is the place of its id among theirs, from 0.
--
-- beat: the worker's row, if it is there.
with beat as (
    update procrastinate_workers as worker
    set last_heartbeat = statement_timestamp(), alone = null
    where worker.id = %(worker_id)s::bigint and worker.partition = 0
    returning worker.id
),
-- reborn: the row that was made because there was none.
reborn as (
    insert into procrastinate_workers as worker (id, name)
    select %(worker_id)s::bigint, %(name)s::text
    where not exists (select from beat)
    on conflict (id, partition) do update set last_heartbeat = excluded.last_heartbeat
    returning worker.id
),
-- others: how many other workers are alive, and how many of them have lower ids.
others as (
    select
        count(*) filter (where worker.id < %(worker_id)s::bigint) as before,
        count(*) as number
    from procrastinate_workers as worker
    where worker.partition = 0 and worker.id <> %(worker_id)s::bigint
        and worker.last_heartbeat
            >= statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
)
select
    exists (select from reborn) as reborn,
    others.before as rank,
    others.number + 1 as live,
    statement_timestamp() as now
from others, (select count(*) from beat) as counted
