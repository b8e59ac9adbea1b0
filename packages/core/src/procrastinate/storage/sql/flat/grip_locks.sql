-- name: grip_locks :many
-- Keeps claims from parking jobs behind the locks of jobs that run no longer. Returns the locks.
-- Must be followed, in the same transaction, by release_locks: a statement of its own, so that
-- it sees the jobs that a claim parked while this one waited for it.
select held.lock
from procrastinate_locks as held
where held.partition = 0 and held.job_id = any(%(ids)s::bigint[])
order by held.lock
for update
