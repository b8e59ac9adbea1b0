-- Validates the checks of migration 6, and makes indexes, while everybody works on.
-- compatible-from: 4
-- outside of a transaction: each statement runs by itself, and may run again
--
-- Locks: share update exclusive on the tables, which holds up VACUUM and other migrations, and neither
-- inserts, claims nor endings. Reads all jobs eight times.

-- As they were before migration 6, and as schema.sql says what they are for.
create index concurrently if not exists procrastinate_jobs_ready_idx on {schema}.procrastinate_jobs
    (partition, queue_name, priority desc, id)
    where status = 'todo' and hold is null;

create index concurrently if not exists procrastinate_jobs_line_idx on {schema}.procrastinate_jobs
    (hold, lock, queue_name, priority desc, id)
    where lock is not null and status = 'todo' and hold is distinct from 'schedule';

-- fail_unknown: waiting jobs that a worker has handed back because it knows no task of their name.
create index concurrently if not exists procrastinate_jobs_unknown_idx on {schema}.procrastinate_jobs
    (partition, unknown_since)
    where unknown_since is not null and status = 'todo';

-- Their turn is over.
drop index concurrently if exists {schema}.procrastinate_jobs_ready_bridge_idx;

drop index concurrently if exists {schema}.procrastinate_jobs_line_bridge_idx;

alter table {schema}.procrastinate_jobs
    validate constraint procrastinate_jobs_names_check,
    validate constraint procrastinate_jobs_locks_check,
    validate constraint procrastinate_jobs_hold_check,
    validate constraint procrastinate_jobs_errors_check;

alter table {schema}.procrastinate_workers
    validate constraint procrastinate_workers_times_check;

alter table {schema}.procrastinate_periodic
    validate constraint procrastinate_periodic_names_check,
    validate constraint procrastinate_periodic_times_check;

-- The statistics of columns whose type has changed were dropped.
analyze {schema}.procrastinate_jobs;
