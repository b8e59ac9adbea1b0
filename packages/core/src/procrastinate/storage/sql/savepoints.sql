-- Undoing a part of the caller's transaction. Plain SQL: no connector need know of it.

-- name: set_savepoint :exec
-- settings: none
savepoint what_can_be_undone

-- name: drop_savepoint :exec
-- settings: none
release savepoint what_can_be_undone

-- name: return_to_savepoint :exec
-- settings: none
-- (After an error the server takes nothing else, no settings either.)
rollback to savepoint what_can_be_undone;
release savepoint what_can_be_undone
