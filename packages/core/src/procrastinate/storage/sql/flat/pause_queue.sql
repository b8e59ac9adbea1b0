-- name: pause_queue :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Pauses a queue, or changes its pause. Returns the pause; no row if its end is not in the future.
-- (No function after "on conflict", because Citus refuses that: excluded.paused_at is the time now.)
insert into procrastinate_queues as pause
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
-- A time, or the nearest one that every driver can read. The table's check sees to that, but a
-- single row from before it, or without it, would keep all others from being read. (CASE, because
-- `greatest` passes over a null.)
returning pause.queue_name, case when pause.paused_at is not null then
    least(greatest(pause.paused_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
end, case when pause.paused_until is not null then
    least(greatest(pause.paused_until, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
end,
    pause.paused_by, pause.reason
