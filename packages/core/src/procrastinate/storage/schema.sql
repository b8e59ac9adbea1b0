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

-- Whether a job is as it must be. It raises what a check of its own would raise. (Every name and operator says its
-- schema, because whoever writes a job may have any search_path.)
create function {schema}.procrastinate_job_fits(
    queue_name text,
    task_name text,
    args jsonb,
    lock text,
    queueing_lock text,
    scheduled_at timestamptz,
    hold text,
    errors jsonb
) returns boolean language plpgsql immutable parallel safe as $fits$
declare
    violated pg_catalog.text;
begin
    if pg_catalog.char_length($1) operator(pg_catalog.>=) 1
        and pg_catalog.char_length($1) operator(pg_catalog.<=) 128
        and pg_catalog.char_length($2) operator(pg_catalog.>=) 1
        and pg_catalog.char_length($2) operator(pg_catalog.<=) 128
        and pg_catalog.jsonb_typeof($3) operator(pg_catalog.=) 'object'
        and pg_catalog.pg_column_size($3) operator(pg_catalog.<=) 2000
        and pg_catalog.pg_column_compression($3) is null
        and $4 is null and $5 is null and $6 is null and $7 is null and $8 is null
    then
        return true;  -- as most are
    end if;
    violated := case
        when pg_catalog.char_length($1) operator(pg_catalog.<) 1
            or pg_catalog.char_length($1) operator(pg_catalog.>) 128
            or pg_catalog.char_length($2) operator(pg_catalog.<) 1
            or pg_catalog.char_length($2) operator(pg_catalog.>) 128
            then 'names'
        when pg_catalog.jsonb_typeof($3) operator(pg_catalog.<>) 'object' then 'args'
        -- A text that a claim can read. The number 1e131071 takes 16 bytes, and 131,072 characters as text: 10,000
        -- of them, 2,770 bytes in a row, held up each claim until it was cut off. (Here a value may be compressed.
        -- To add nothing to it gives it as it is without that.)
        when (
            pg_catalog.pg_column_size($3) operator(pg_catalog.>) 2000
            or pg_catalog.pg_column_compression($3) is not null
        ) and pg_catalog.octet_length($3::pg_catalog.text) operator(pg_catalog.>) greatest(
            1048576,
            least(
                209715200,
                64::pg_catalog.int8 operator(pg_catalog.*)
                    pg_catalog.pg_column_size($3 operator(pg_catalog.||) '{}'::pg_catalog.jsonb)
            )
        ) then 'args'
        -- 512 characters are at most 2,048 bytes. With a queue's name of 512 bytes they fit into an entry of an
        -- index, which may have 2,700.
        when pg_catalog.char_length($4) operator(pg_catalog.>) 512
            or pg_catalog.char_length($5) operator(pg_catalog.>) 512
            then 'locks'
        -- A time that every driver can read: one that it cannot would stop the worker that claims the job.
        when $6 operator(pg_catalog.<) '0001-01-03 00:00+00'
            or $6 operator(pg_catalog.>) '9999-12-29 00:00+00'
            then 'scheduled_at'
        -- What a job is held for is there. Else it would wait for ever.
        when ($7 operator(pg_catalog.=) 'schedule' and $6 is null)
            or ($7 operator(pg_catalog.=) 'lock' and $4 is null)
            then 'hold'
        when pg_catalog.jsonb_typeof($8) operator(pg_catalog.<>) 'array' then 'errors'
    end;
    if violated is null then
        return true;
    end if;
    violated := pg_catalog.concat('procrastinate_jobs_', violated, '_check');
    raise exception using
        errcode = '23514',
        message = pg_catalog.format(
            'new row for relation "procrastinate_jobs" violates check constraint "%s"', violated
        ),
        table = 'procrastinate_jobs',
        constraint = violated;
end
$fits$;

grant execute on function {schema}.procrastinate_job_fits to public;

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
    first_started_at timestamptz,  -- of the first attempt, once the job came back from it; else it is started_at
    meta jsonb,  -- what observers keep with a job, such as the trace that it belongs to
    result jsonb,  -- that its task returned, if it is kept
    result_error text,  -- why a result that was to be kept is not
    constraint procrastinate_jobs_pkey primary key (id, partition),
    -- All that rows must be, by one call: the server reads the text of a check anew for each statement, and by six
    -- texts an insert took 21 microseconds instead of 12. (Without any: 9.) A job that has succeeded was read by a
    -- worker, and its ending changes nothing of this: to ask it again took a twentieth of a job that does nothing.
    constraint procrastinate_jobs_row_check check (
        status = 'succeeded' or {schema}.procrastinate_job_fits(
            queue_name, task_name, args, lock, queueing_lock, scheduled_at, hold::text, errors
        )
    )
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
    pid integer,
    version text,  -- of procrastinate
    queues text[],  -- that it serves; null: all
    busy integer,  -- slots with a job
    blocked_since timestamptz,  -- when its event loop last turned, if that was long ago
    trusted boolean,  -- false: it claims nothing until the database has heard of it again
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
    cron text,
    timezone text,
    queue_name text,  -- of its jobs
    constraint procrastinate_periodic_pkey primary key (task_name, periodic_id, partition),
    constraint procrastinate_periodic_names_check
        check (char_length(task_name) between 1 and 128 and char_length(periodic_id) <= 128),
    constraint procrastinate_periodic_times_check check (
        least(done_until, last_tick, seen_at) >= '0001-01-03 00:00+00'
        and greatest(done_until, last_tick, seen_at) <= '9999-12-29 00:00+00'
    )
);

-- Who waits for the end of which job: the statement that writes an ending notifies them. Rows of those that went
-- away without removing them are void after expires_at. (Unlogged: who waits also looks by itself.)
create unlogged table {schema}.procrastinate_waits (
    job_id bigint not null,
    partition smallint not null,
    waiter bigint not null,  -- a number that each waiting process draws at random
    expires_at timestamptz not null,
    constraint procrastinate_waits_pkey primary key (job_id, partition, waiter)
);

-- How far running jobs say that they are. (Unlogged: it can be lost, and a standby cannot read it.)
create unlogged table {schema}.procrastinate_progress (
    job_id bigint not null,
    partition smallint not null,
    lease integer not null,  -- of the attempt that said it
    fraction real not null,  -- from 0 to 1
    message text,
    data jsonb,
    updated_at timestamptz not null default statement_timestamp(),
    constraint procrastinate_progress_pkey primary key (job_id, partition),
    constraint procrastinate_progress_fraction_check check (fraction between 0 and 1)
) with (fillfactor = 70);

-- Queues that are paused. '*' stands for all of the users' own.
create table {schema}.procrastinate_queues (
    queue_name text not null,
    partition smallint not null default 0,
    paused_at timestamptz not null default statement_timestamp(),
    paused_until timestamptz,
    paused_by text,
    reason text,
    constraint procrastinate_queues_pkey primary key (queue_name, partition),
    constraint procrastinate_queues_names_check check (char_length(queue_name) between 1 and 128),
    constraint procrastinate_queues_times_check check (
        paused_at >= '0001-01-03 00:00+00' and paused_at <= '9999-12-29 00:00+00'
        and coalesce(paused_until between '0001-01-03 00:00+00' and '9999-12-29 00:00+00', true)
    )
);

-- How many attempts ended in each minute, and later in each hour, and how long they ran and had waited: counts for
-- buckets of durations, the bounds of which are powers of two.
create table {schema}.procrastinate_minutes (
    begins_at timestamptz not null,
    seconds integer not null,  -- 60 or 3600
    queue_name text not null,
    task_name text not null,
    partition smallint not null default 0,
    succeeded bigint not null default 0,
    failed bigint not null default 0,
    cancelled bigint not null default 0,
    aborted bigint not null default 0,
    retried bigint not null default 0,
    seconds_run double precision not null default 0,
    seconds_waited double precision not null default 0,
    run_buckets bigint[],
    waited_buckets bigint[],
    constraint procrastinate_minutes_pkey
        primary key (begins_at, seconds, queue_name, task_name, partition),
    constraint procrastinate_minutes_seconds_check check (seconds in (60, 3600))
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
