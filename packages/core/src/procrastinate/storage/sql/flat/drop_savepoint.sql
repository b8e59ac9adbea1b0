-- name: drop_savepoint :exec
-- settings: only
release savepoint what_can_be_undone
