-- Pausing queues. A pause is a row; one whose end has passed is none any more. '*' is every queue
-- but `builtin`. The rows are in one place, also on a distributed database: statements about jobs
-- are told which queues are paused.

-- fragment: pause_columns
pause.queue_name, {>readable moment="pause.paused_at"}, {>readable moment="pause.paused_until"},
    pause.paused_by, pause.reason

-- name: pause_queue :many
-- Pauses a queue, or changes its pause. Returns the pause; no row if its end is not in the future.
-- (No function after "on conflict", because Citus refuses that: excluded.paused_at is the time now.)
insert into {schema}.procrastinate_queues as pause
    (queue_name, partition, paused_at, paused_until, paused_by, reason)
select
    %(queue_name)s::text, 0, statement_timestamp(), %(until)s::timestamptz, %(by)s::text,
    %(reason)s::text
where %(until)s::timestamptz is null or %(until)s::timestamptz > statement_timestamp()
on conflict (queue_name, partition) do update
set paused_at = case
        when pause.paused_until is null or pause.paused_until > excluded.paused_at then pause.paused_at
        else excluded.paused_at
    end,
    paused_until = excluded.paused_until,
    paused_by = excluded.paused_by,
    reason = excluded.reason
returning {>pause_columns}

-- name: resume_queue :many
-- Ends the pause of a queue. Returns whether it was still in force; no row if there was none.
-- (Citus lets no function of the time stand after "returning".)
with resumed as (
    delete from {schema}.procrastinate_queues as pause
    where pause.queue_name = %(queue_name)s::text and pause.partition = 0
    returning pause.paused_until
)
select {>in_force}::integer
from resumed as pause

-- name: drop_ended_pauses :exec
-- Removes the pauses that have ended by themselves, but for rows that another transaction has locked.
delete from {schema}.procrastinate_queues as pause
where pause.partition = 0 and pause.queue_name = any(array(
    select pause.queue_name
    from {schema}.procrastinate_queues as pause
    where pause.partition = 0 and not {>in_force}
    for update skip locked
))

-- name: list_pauses :many
-- Returns the pauses that are in force, each with the seconds until it ends by itself, or null.
select
    {>pause_columns},
    extract(epoch from pause.paused_until - statement_timestamp())::float8
from {schema}.procrastinate_queues as pause
where pause.partition = 0 and {>in_force}
order by pause.queue_name
