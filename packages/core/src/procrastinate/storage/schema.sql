-- The tables of procrastinate, as the migrations leave them. (The functions are in functions.sql.) Every primary key holds the partition after the id, so that the same
-- tables can be distributed over a Citus cluster; with one partition it is always 0.

create type {schema}.procrastinate_job_status as enum (
    'todo', 'doing', 'succeeded', 'failed', 'cancelled', 'aborted'
);

-- Why a job that is 'todo' may not be claimed yet; null means ready now.
create type {schema}.procrastinate_hold as enum (
    'schedule',  -- scheduled_at lies ahead
    'lock'       -- another job holds its lock, or comes before it in the lock's line
);

-- Nobody may make functions or operators of these types: `status = 'todo'` would find them first.
revoke usage on type {schema}.procrastinate_job_status, {schema}.procrastinate_hold from public;

create sequence {schema}.procrastinate_jobs_id_seq as bigint;
create sequence {schema}.procrastinate_workers_id_seq as bigint;

create table {schema}.procrastinate_jobs (
    id bigint not null default nextval('{schema}.procrastinate_jobs_id_seq'),
    partition smallint not null default 0,
    priority integer not null default 0,
    attempts integer not null default 0,
    lease integer not null default 0,  -- one more for each claim; it never falls
    crashes smallint not null default 0,
    status {schema}.procrastinate_job_status not null default 'todo',
    hold {schema}.procrastinate_hold,
    abort_requested boolean not null default false,
    worker_id bigint,
    deferred_at timestamptz not null default statement_timestamp(),
    scheduled_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    queue_name text not null,
    task_name text not null,
    lock text,
    queueing_lock text,
    args jsonb not null default '{}',
    errors jsonb,
    unknown_since timestamptz,  -- first handed back by a worker that knows no task of its name
    bounces smallint,  -- how often in a row it was handed back, not begun, to be claimed later
    constraint procrastinate_jobs_pkey primary key (id, partition),
    constraint procrastinate_jobs_names_check
        check (char_length(queue_name) between 1 and 128 and char_length(task_name) between 1 and 128),
    constraint procrastinate_jobs_args_check check (jsonb_typeof(args) = 'object'),
    -- 512 characters are at most 2,048 bytes. With a queue's name of 512 bytes they fit into an entry of an
    -- index, which may have 2,700.
    constraint procrastinate_jobs_locks_check
        check (char_length(lock) <= 512 and char_length(queueing_lock) <= 512),
    -- A time that every driver can read: one that it cannot would stop the worker that claims the job.
    constraint procrastinate_jobs_scheduled_at_check
        check (scheduled_at between '0001-01-03 00:00+00' and '9999-12-29 00:00+00'),
    -- What a job is held for is there. Else it would wait for ever.
    constraint procrastinate_jobs_hold_check check (
        case hold when 'schedule' then scheduled_at is not null when 'lock' then lock is not null end
    ),
    constraint procrastinate_jobs_errors_check check (jsonb_typeof(errors) = 'array')
) with (fillfactor = 70);

alter sequence {schema}.procrastinate_jobs_id_seq owned by {schema}.procrastinate_jobs.id;

-- Claims and ready_queues: jobs that may start now, in the order of their claim.
create index procrastinate_jobs_ready_idx on {schema}.procrastinate_jobs
    (partition, queue_name, priority desc, id)
    where status = 'todo' and hold is null;

-- promote_due: jobs whose time has not come yet.
create index procrastinate_jobs_scheduled_idx on {schema}.procrastinate_jobs
    (partition, scheduled_at)
    where status = 'todo' and hold = 'schedule';

-- Claims with locks, release_locks and idle_lines: the line of each lock, in each queue. Parked
-- jobs stand apart from ready ones, so that none of them are read in search of the others.
create index procrastinate_jobs_line_idx on {schema}.procrastinate_jobs
    (hold, lock, queue_name, priority desc, id)
    where lock is not null and status = 'todo' and hold is distinct from 'schedule';

-- recover_jobs, list_stalled, abort_requests: what is running, by worker.
create index procrastinate_jobs_doing_idx on {schema}.procrastinate_jobs
    (partition, worker_id)
    where status = 'doing';

-- list_jobs, grip_ended: what failed, was cancelled or aborted, without a walk through what succeeded.
create index procrastinate_jobs_ended_idx on {schema}.procrastinate_jobs
    (partition, status, id)
    where status in ('failed', 'cancelled', 'aborted');

-- fail_unknown: waiting jobs that a worker has handed back because it knows no task of their name.
create index procrastinate_jobs_unknown_idx on {schema}.procrastinate_jobs
    (partition, unknown_since)
    where unknown_since is not null and status = 'todo';

-- One waiting job for each queueing lock.
create unique index procrastinate_jobs_queueing_lock_key on {schema}.procrastinate_jobs
    (queueing_lock, partition)
    where queueing_lock is not null and status = 'todo';

-- Who holds each lock now. A row exists while its job is 'doing'. On a distributed database there may also be
-- rows without a job: these locks are free.
create table {schema}.procrastinate_locks (
    lock text not null,
    partition smallint not null default 0,
    job_id bigint,
    constraint procrastinate_locks_pkey primary key (lock, partition)
);

create index procrastinate_locks_job_idx on {schema}.procrastinate_locks (job_id);

create table {schema}.procrastinate_workers (
    id bigint not null default nextval('{schema}.procrastinate_workers_id_seq'),
    partition smallint not null default 0,
    name text not null,
    started_at timestamptz not null default statement_timestamp(),
    last_heartbeat timestamptz not null default statement_timestamp(),
    host text,
    concurrency integer,
    task_names text[],  -- that it knows
    alone boolean,  -- of a dead one: it held one job, and no other of its host died with it
    constraint procrastinate_workers_pkey primary key (id, partition),
    constraint procrastinate_workers_times_check check (
        least(started_at, last_heartbeat) >= '0001-01-03 00:00+00'
        and greatest(started_at, last_heartbeat) <= '9999-12-29 00:00+00'
    )
);

alter sequence {schema}.procrastinate_workers_id_seq owned by {schema}.procrastinate_workers.id;

-- Which ticks of a schedule are settled: those up to done_until are deferred, or given up.
create table {schema}.procrastinate_periodic (
    task_name text not null,
    periodic_id text not null,
    partition smallint not null default 0,
    done_until timestamptz not null,
    last_tick timestamptz,  -- of the latest job, with the next column
    job_id bigint,
    seen_at timestamptz not null default statement_timestamp(),  -- by code that has it, to the day
    constraint procrastinate_periodic_pkey primary key (task_name, periodic_id, partition),
    constraint procrastinate_periodic_names_check
        check (char_length(task_name) between 1 and 128 and char_length(periodic_id) <= 128),
    constraint procrastinate_periodic_times_check check (
        least(done_until, last_tick, seen_at) >= '0001-01-03 00:00+00'
        and greatest(done_until, last_tick, seen_at) <= '9999-12-29 00:00+00'
    )
);

-- One row. There is one partition until `schema --distribute` makes it 64; ids up to boundary_id are from
-- before that, and do not say their partition.
create table {schema}.procrastinate_settings (
    partitions smallint not null,
    boundary_id bigint not null,
    constraint procrastinate_settings_partitions_check check (partitions in (1, 64))
);

create unique index procrastinate_settings_one_row_idx on {schema}.procrastinate_settings ((true));

insert into {schema}.procrastinate_settings (partitions, boundary_id) values (1, 0);

-- Every process reads it, whatever its role may do else.
grant select on {schema}.procrastinate_settings to public;

-- Which migrations the database has. Code written for schema version V fits the database when
-- no version below or equal to V is missing and no row's compatible_from lies above V.
create table {schema}.procrastinate_migrations (
    version integer not null,
    name text not null,
    compatible_from integer not null,
    applied_at timestamptz not null default statement_timestamp(),
    constraint procrastinate_migrations_pkey primary key (version)
);
