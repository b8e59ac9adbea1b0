-- name: resume_queue :many
-- Ends the pause of a queue. Returns whether it was still in force; no row if there was none.
delete from procrastinate_queues as pause
where pause.queue_name = %(queue_name)s::text and pause.partition = 0
-- True of a pause that has not ended by itself.
returning (pause.paused_until is null or pause.paused_until > statement_timestamp())::integer
