-- name: return_to_savepoint :exec
-- (After an error the server takes nothing else: no settings, not even those of a call's limit.)
-- settings: only
rollback to savepoint what_can_be_undone;
release savepoint what_can_be_undone
