-- name: defer_jobs :many
-- It runs with jit = off, transaction_isolation = read committed, enable_indexscan = on,
--     enable_nestloop = on, enable_sort = on.
-- Inserts the jobs of a JSON array, all or none, and wakes the workers once for each queue and
-- channel. What an element lacks is taken from `common`. Ids are drawn in the order given. Returns
-- (id, null) for each; or (null, queueing_lock) once when a queueing lock is taken by a waiting job
-- or stands twice in the batch: then nothing was inserted. (See storage/functions.sql.)
select id, taken
from procrastinate_defer_jobs(
    %(jobs)s::jsonb, %(common)s::jsonb, 'procrastinate_jobs'::regclass
)
