-- name: set_savepoint :exec
savepoint what_can_be_undone
