-- name: return_to_savepoint :exec
rollback to savepoint what_can_be_undone;
release savepoint what_can_be_undone
