-- name: set_savepoint :exec
-- settings: only
savepoint what_can_be_undone
