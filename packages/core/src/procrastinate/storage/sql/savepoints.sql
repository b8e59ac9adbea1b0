-- Undoing a part of the caller's transaction. Plain SQL: no connector need know of it.

-- name: set_savepoint :exec
-- (With the isolation: it may be the first statement of a transaction of ours, and behind it nothing can set that.)
-- settings: only, jit, isolation
savepoint what_can_be_undone

-- name: drop_savepoint :exec
-- settings: only
release savepoint what_can_be_undone

-- name: return_to_savepoint :exec
-- (After an error the server takes nothing else: no settings, not even those of a call's limit.)
-- settings: only
rollback to savepoint what_can_be_undone;
release savepoint what_can_be_undone
