-- name: return_to_savepoint :exec
-- settings: none
-- (After an error the server takes nothing else, no settings either.)
rollback to savepoint what_can_be_undone;
release savepoint what_can_be_undone
