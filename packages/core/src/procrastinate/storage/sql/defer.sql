-- fragment: due
coalesce(
    %(scheduled_at)s::timestamptz,
    statement_timestamp() + %(schedule_in_us)s::bigint::float8 * interval '1 microsecond'
)

-- name: defer_job :one
-- settings: only, jit, isolation
-- Inserts one job and wakes the workers: on procrastinate_jobs when it is ready, on
-- procrastinate_schedule when it is due within a minute. (A worker looks at the schedule twice a
-- minute; without the second channel a job due in a second would start at the next look.)
-- Returns its id, or null when a job with the same queueing lock is waiting.
-- (By the function that other languages call, too: each session plans its INSERT once. As a statement
-- of its own it took the server 316 microseconds, and as this call 225. All parameters are given:
-- another role's function with fewer of them would fit a shorter call as well.)
select {schema}.procrastinate_defer_job(
    %(task_name)s::text, %(args)s::jsonb, %(queue_name)s::text, %(priority)s::integer,
    %(lock)s::text, %(queueing_lock)s::text,
    %(scheduled_at)s::timestamptz,
    '{schema}.procrastinate_jobs'::regclass,
    %(meta)s::jsonb
)

-- name: defer_job_in :one
-- settings: only, jit, isolation
-- The same as defer_job, for a job that is due in so many microseconds. (The sum is a twelfth of the
-- server's work, so jobs without one do not ask for it.)
select {schema}.procrastinate_defer_job(
    %(task_name)s::text, %(args)s::jsonb, %(queue_name)s::text, %(priority)s::integer,
    %(lock)s::text, %(queueing_lock)s::text,
    {>due},
    '{schema}.procrastinate_jobs'::regclass,
    %(meta)s::jsonb
)

-- name: defer_job_with_key :one
-- settings: only, jit, isolation
-- The same as defer_job, for a job with a partition key, which a server with one partition ignores.
select {schema}.procrastinate_defer_job_with_key(
    %(task_name)s::text, %(partition_key)s::text, %(args)s::jsonb, %(queue_name)s::text,
    %(priority)s::integer, %(lock)s::text, %(queueing_lock)s::text,
    {>due},
    '{schema}.procrastinate_jobs'::regclass,
    %(meta)s::jsonb
)

-- name: defer_alike :one
-- settings: only, jit, isolation
-- Inserts jobs that differ in their arguments alone, one for each element of a JSON array, and wakes
-- the workers once. Returns the ids as the text of one array, or null if there are none. (See
-- storage/functions.sql. As text, because a caller's connection may read the numbers in an array as
-- something else.)
select {schema}.procrastinate_defer_alike(
    %(all_args)s::jsonb, %(common)s::jsonb, '{schema}.procrastinate_jobs'::regclass
)::text

-- name: defer_jobs :many
-- Inserts the jobs of a JSON array, all or none, and wakes the workers once for each queue and
-- channel. What an element lacks is taken from `common`. Ids are drawn in the order given. Returns
-- (id, null) for each; or (null, queueing_lock) once when a queueing lock is taken by a waiting job
-- or stands twice in the batch: then nothing was inserted. (See storage/functions.sql.)
select id, taken
from {schema}.procrastinate_defer_jobs(
    %(jobs)s::jsonb, %(common)s::jsonb, '{schema}.procrastinate_jobs'::regclass
)
