-- Exact counts of the jobs in one state, for metrics. Each may take long in a large table, so the
-- caller gives it a statement_timeout. The states are literals because parameters could not use
-- partial indexes.

-- fragment: counted_by_queue
select job.queue_name, count(*)::bigint
from {schema}.procrastinate_jobs as job
where {>anywhere} and {>in_state}
group by job.queue_name

-- name: count_ready :many
-- Returns (queue, number of ready jobs).
{>counted_by_queue in_state="job.status = 'todo' and job.hold is null"}

-- name: count_scheduled :many
-- Returns (queue, number of scheduled jobs).
{>counted_by_queue in_state="job.status = 'todo' and job.hold = 'schedule'"}

-- name: count_behind_a_lock :many
-- Returns (queue, number of jobs behind a lock).
-- (The last two conditions are always true, and let the planner use the index of lines: 50,000 among
-- 5 million took 0.2 s, and 3.3 s without them.)
{>counted_by_queue in_state="job.status = 'todo' and job.hold = 'lock' and job.lock is not null and job.hold is distinct from 'schedule'"}

-- name: count_running :many
-- Returns (queue, number of running jobs).
{>counted_by_queue in_state="job.status = 'doing'"}

-- name: count_succeeded :many
-- Returns (queue, number of succeeded jobs).
{>counted_by_queue in_state="job.status = 'succeeded'"}

-- name: count_failed :many
-- Returns (queue, number of failed jobs).
{>counted_by_queue in_state="job.status = 'failed'"}

-- name: count_cancelled :many
-- Returns (queue, number of cancelled jobs).
{>counted_by_queue in_state="job.status = 'cancelled'"}

-- name: count_aborted :many
-- Returns (queue, number of aborted jobs).
{>counted_by_queue in_state="job.status = 'aborted'"}
