-- Limits of values, as in Python's checks, so that no row can be made that would spoil everybody's day.
-- compatible-from: 4
--
-- Locks: access exclusive on jobs, workers and periodic, for milliseconds: only the catalog changes. The new
-- checks hold for new and changed rows. Migration 7 validates them for old ones, which are looked at before
-- this is run. Two indexes are dropped, which migration 7 makes anew; until then claims use those of migration 5.
--
-- Each check of jobs costs an insert 1 to 4 microseconds. So there is none for what only an update by hand
-- could spoil: attempts, leases, and times but scheduled_at. Claims and lists bear odd values of those.
--
-- The new functions that insert jobs (storage/functions.sql) are made after the last migration.

-- Nobody may make functions or operators of these types: `status = 'todo'` would find them first.
revoke usage on type {schema}.procrastinate_job_status, {schema}.procrastinate_hold from public;

-- As in every migration: see storage/migrating.py.
set local lock_timeout = '10s';
lock table {schema}.procrastinate_jobs in share update exclusive mode;
set local lock_timeout = '300ms';
lock table {schema}.procrastinate_workers, {schema}.procrastinate_periodic;
lock table {schema}.procrastinate_jobs;

-- What depends on a column goes before its type changes: it would be made anew, which reads all rows. (As
-- varchar, a comparison finds functions of others first: there is none of that type in pg_catalog.)
drop index if exists {schema}.procrastinate_jobs_ready_idx, {schema}.procrastinate_jobs_line_idx;
alter table {schema}.procrastinate_jobs
    drop constraint procrastinate_jobs_names_check;
alter table {schema}.procrastinate_jobs
    alter column queue_name type text,
    alter column task_name type text,
    add constraint procrastinate_jobs_names_check
        check (char_length(queue_name) between 1 and 128 and char_length(task_name) between 1 and 128)
        not valid,
    -- 512 characters are at most 2,048 bytes. With a queue's name of 512 bytes they fit into an entry of an
    -- index, which may have 2,700.
    add constraint procrastinate_jobs_locks_check
        check (char_length(lock) <= 512 and char_length(queueing_lock) <= 512)
        not valid,
    -- What a job is held for is there. Else it would wait for ever.
    add constraint procrastinate_jobs_hold_check
        check (
            case hold when 'schedule' then scheduled_at is not null when 'lock' then lock is not null end
        )
        not valid,
    add constraint procrastinate_jobs_errors_check
        check (jsonb_typeof(errors) = 'array')
        not valid;

alter table {schema}.procrastinate_workers
    add constraint procrastinate_workers_times_check
        check (
            least(started_at, last_heartbeat) >= '0001-01-03 00:00+00'
            and greatest(started_at, last_heartbeat) <= '9999-12-29 00:00+00'
        )
        not valid;

alter table {schema}.procrastinate_periodic
    alter column task_name type text,
    alter column periodic_id type text,
    add constraint procrastinate_periodic_names_check
        check (char_length(task_name) between 1 and 128 and char_length(periodic_id) <= 128)
        not valid,
    add constraint procrastinate_periodic_times_check
        check (
            least(done_until, last_tick, seen_at) >= '0001-01-03 00:00+00'
            and greatest(done_until, last_tick, seen_at) <= '9999-12-29 00:00+00'
        )
        not valid;
