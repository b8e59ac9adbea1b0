-- name: set_savepoint :exec
-- It runs with jit = off, transaction_isolation = read committed.
-- (With the isolation: it may be the first statement of a transaction of ours, and behind it nothing can set that.)
-- settings: only, jit, isolation
savepoint what_can_be_undone
