-- name: drop_ended_pauses :exec
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Removes the pauses that have ended by themselves, but for rows that another transaction has locked.
delete from procrastinate_queues as pause
where pause.partition = 0 and pause.queue_name = any(array(
    select pause.queue_name
    from procrastinate_queues as pause
    -- True of a pause that has not ended by itself.
    where pause.partition = 0 and not (pause.paused_until is null or pause.paused_until > statement_timestamp())
    for update skip locked
))
