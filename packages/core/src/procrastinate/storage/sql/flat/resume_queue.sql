-- name: resume_queue :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Ends the pause of a queue. Returns whether it was still in force; no row if there was none.
-- (Citus lets no function of the time stand after "returning".)
with resumed as (
    delete from procrastinate_queues as pause
    where pause.queue_name = %(queue_name)s::text and pause.partition = 0
    returning pause.paused_until
)
-- True of a pause that has not ended by itself.
select (pause.paused_until is null or pause.paused_until > statement_timestamp())::integer
from resumed as pause
