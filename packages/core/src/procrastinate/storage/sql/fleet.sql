-- Workers and schedules, for people who look. (Lists are read as JSON, which no setting of a
-- connection changes.)

-- name: list_workers :many
-- Returns all workers that have a row, with how many seconds ago each gave a sign of life.
select
    worker.id, worker.name, worker.host, worker.pid, worker.version,
    pg_catalog.to_json(worker.queues)::text, pg_catalog.to_json(worker.task_names)::text,
    worker.concurrency, worker.busy, worker.trusted::integer,
    {>readable moment="worker.blocked_since"}, {>readable moment="worker.started_at"},
    {>readable moment="worker.last_heartbeat"},
    extract(epoch from statement_timestamp() - worker.last_heartbeat)::float8
from {schema}.procrastinate_workers as worker
where worker.partition = 0
order by worker.id

-- name: list_schedules :many
-- Returns all schedules that workers have entered.
select
    periodic.task_name, periodic.periodic_id, periodic.cron, periodic.timezone,
    periodic.queue_name, {>readable moment="periodic.done_until"},
    {>readable moment="periodic.last_tick"}, periodic.job_id,
    {>readable moment="periodic.seen_at"}
from {schema}.procrastinate_periodic as periodic
where periodic.partition = 0
order by periodic.task_name, periodic.periodic_id
