-- name: prune_minutes :exec
-- settings: patience, asynchronous
-- Removes what ended longer ago than that.
delete from procrastinate_minutes as minute
where minute.partition = 0
    and minute.begins_at < statement_timestamp()
        - %(keep_us)s::bigint::float8 * interval '1 microsecond'
