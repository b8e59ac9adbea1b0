-- name: drop_savepoint :exec
release savepoint what_can_be_undone
