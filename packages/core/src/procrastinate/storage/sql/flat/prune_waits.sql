-- name: prune_waits :exec
-- Removes these rows from a partition.
delete from procrastinate_waits as wait
where wait.partition = %(partition)s::smallint and wait.expires_at < statement_timestamp()
