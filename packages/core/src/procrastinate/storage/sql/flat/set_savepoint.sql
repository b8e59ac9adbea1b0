-- name: set_savepoint :exec
-- settings: none
savepoint what_can_be_undone
