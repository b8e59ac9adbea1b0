-- Two indexes that claims use until migration 7 has made those anew that migration 6 drops.
-- compatible-from: 4
-- outside of a transaction: each statement runs by itself, and may run again
--
-- Locks: share update exclusive on jobs, which holds up VACUUM and other migrations, and neither inserts, claims
-- nor endings. Reads all jobs twice.
--
-- (A change of a column's type makes each partial index on it anew, although varchar and text are stored alike,
-- and inserts would wait while all jobs are read: 0.8 s for each million.)

create index concurrently if not exists procrastinate_jobs_ready_bridge_idx on {schema}.procrastinate_jobs
    (partition, priority desc, id)
    where status = 'todo' and hold is null;

create index concurrently if not exists procrastinate_jobs_line_bridge_idx on {schema}.procrastinate_jobs
    (hold, lock, priority desc, id)
    where lock is not null and status = 'todo' and hold is distinct from 'schedule';
