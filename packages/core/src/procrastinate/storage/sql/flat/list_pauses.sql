-- name: list_pauses :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Returns the pauses that are in force, each with the seconds until it ends by itself, or null.
select
    -- A time, or the nearest one that every driver can read. The table's check sees to that, but a
    -- single row from before it, or without it, would keep all others from being read. (CASE, because
    -- `greatest` passes over a null.)
    pause.queue_name, case when pause.paused_at is not null then
        least(greatest(pause.paused_at, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end, case when pause.paused_until is not null then
        least(greatest(pause.paused_until, '0001-01-03 00:00+00'), '9999-12-29 00:00+00')
    end,
        pause.paused_by, pause.reason,
    extract(epoch from pause.paused_until - statement_timestamp())::float8
from procrastinate_queues as pause
-- True of a pause that has not ended by itself.
where pause.partition = 0 and (pause.paused_until is null or pause.paused_until > statement_timestamp())
order by pause.queue_name
