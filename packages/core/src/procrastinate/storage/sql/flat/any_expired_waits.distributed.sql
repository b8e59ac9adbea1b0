-- name: any_expired_waits :many
-- settings: one_connection
-- Returns the partitions that have rows of processes that went away without removing them.
select distinct wait.partition
from procrastinate_waits as wait
where wait.partition = any(%(partitions)s::smallint[]) and wait.expires_at < statement_timestamp()
