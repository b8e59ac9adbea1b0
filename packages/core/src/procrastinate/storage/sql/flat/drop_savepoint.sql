-- name: drop_savepoint :exec
-- settings: none
release savepoint what_can_be_undone
