-- name: dead_workers :many
-- Returns the ids of those of these workers that have given no sign of life within the timeout. (A
-- statement of its own, as all that read workers: they stand in another place than the jobs if
-- these are distributed.)
select given.id
from pg_catalog.unnest(%(worker_ids)s::bigint[]) as given(id)
where not exists (
    select from procrastinate_workers as worker
    where worker.id = given.id and worker.partition = 0
        and worker.last_heartbeat
            >= statement_timestamp() - %(timeout_us)s::bigint::float8 * interval '1 microsecond'
)
