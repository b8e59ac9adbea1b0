-- Undoing a part of the caller's transaction. Plain SQL: no connector need know of it.

-- name: set_savepoint :exec
savepoint what_can_be_undone

-- name: drop_savepoint :exec
release savepoint what_can_be_undone

-- name: return_to_savepoint :exec
rollback to savepoint what_can_be_undone;
release savepoint what_can_be_undone
