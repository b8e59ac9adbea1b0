-- name: list_workers :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns all workers that have a row, with how many seconds ago each gave a sign of life.
select
    worker.id, worker.name, worker.host, worker.pid, worker.version,
    pg_catalog.to_json(worker.queues)::text, pg_catalog.to_json(worker.task_names)::text,
    worker.concurrency, worker.busy, worker.trusted::integer,
    -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
    -- single row from before it, or without it, would keep all others from being read. (CASE, because
    -- `greatest` passes over a null.)
    case when worker.blocked_since is not null then
        least(greatest(worker.blocked_since, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end, case when worker.started_at is not null then
        least(greatest(worker.started_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end,
    case when worker.last_heartbeat is not null then
        least(greatest(worker.last_heartbeat, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end,
    extract(epoch from statement_timestamp() - worker.last_heartbeat)::float8
from procrastinate_workers as worker
where worker.partition = 0
order by worker.id
