-- What results, progress, waiting, pausing and watching need of the tables, and one check of jobs instead of six.
-- compatible-from: 4
--
-- Locks: access exclusive on jobs, workers and periodic, for milliseconds: only the catalog changes. The new check
-- holds for new and changed rows, and asks what the six before it asked, which old rows were looked at for;
-- migration 10 validates it. (On a cluster of three nodes both took 2.4 s, in which defers waited 0.6 s at most.)
--
-- What it costs: nothing, until something is written into it. A row's list of nulls had room for the four columns:
-- inserting a job is 316 bytes of WAL, and claiming and ending it 666, as before. Filled, each costs bytes of WAL for the
-- whole life of a job, in tables without full pages: meta with a trace context 138, with '{}' 8; a result of null,
-- written with the ending, 37, of a number 48, of 200 characters 255; result_error of 44 characters 69; first_started_at 37.
-- A row in waits is in no WAL but for its table's creation, nor is one in progress.
-- The new check costs an ending none of the time that the six took, since what has succeeded is not asked again, and an
-- insert of one job 9 microseconds less.
--
-- The new functions that insert jobs (storage/functions.sql) are made after the last migration.

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

-- Who may do something with the jobs may do the same with the new tables, if it may read the jobs: a worker's role
-- writes them. (A role that may only enqueue needs none of them.)
do $grants$
declare
    jobs constant oid := '{schema}.procrastinate_jobs'::regclass::oid;
    granted record;
begin
    for granted in
        select
            case when acl.grantee = 0::oid then 'public' else acl.grantee::regrole::text end as role,
            pg_catalog.string_agg(distinct acl.privilege_type, ', ') as rights
        from pg_catalog.pg_class as class
        cross join lateral pg_catalog.aclexplode(class.relacl) as acl
        where class.oid = jobs and acl.grantee <> class.relowner
            and acl.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
        group by acl.grantee
        having pg_catalog.bool_or(acl.privilege_type = 'SELECT')
    loop
        execute 'grant ' || granted.rights || ' on {schema}.procrastinate_waits, {schema}.procrastinate_progress,'
            || ' {schema}.procrastinate_queues, {schema}.procrastinate_minutes to ' || granted.role;
    end loop;
end
$grants$;

-- On a distributed database: what belongs to a job is with it, and the others are on the coordinator, as workers
-- and schedules are. A node that is away keeps nobody from pausing a queue.
do $spread$
begin
    if to_regclass('pg_catalog.pg_dist_partition') is null then
        return;  -- a plain server
    end if;
    if not exists (
        select from pg_catalog.pg_dist_partition
        where logicalrelid = to_regclass('{schema}.procrastinate_jobs')
    ) then
        return;
    end if;
    -- Logical replication, by which partitions move to a new node, leaves out unlogged tables.
    alter table {schema}.procrastinate_waits set logged;
    alter table {schema}.procrastinate_progress set logged;
    perform pg_catalog.create_distributed_table(
        '{schema}.procrastinate_waits', 'partition', colocate_with := '{schema}.procrastinate_jobs'
    );
    perform pg_catalog.create_distributed_table(
        '{schema}.procrastinate_progress', 'partition', colocate_with := '{schema}.procrastinate_jobs'
    );
    perform pg_catalog.citus_add_local_table_to_metadata('{schema}.procrastinate_queues');
    perform pg_catalog.citus_add_local_table_to_metadata('{schema}.procrastinate_minutes');
end
$spread$;

-- As in every migration: see storage/migrating.py.
set local lock_timeout = '10s';
lock table {schema}.procrastinate_jobs in share update exclusive mode;
set local lock_timeout = '300ms';
lock table {schema}.procrastinate_workers, {schema}.procrastinate_periodic;
lock table {schema}.procrastinate_jobs;

alter table {schema}.procrastinate_jobs
    add column first_started_at timestamptz,
    add column meta jsonb,
    add column result jsonb,
    add column result_error text;

-- (Alone: a distributed table gets a constraint by a statement of its own.)
alter table {schema}.procrastinate_jobs
    add constraint procrastinate_jobs_row_check check (
        status = 'succeeded' or {schema}.procrastinate_job_fits(
            queue_name, task_name, args, lock, queueing_lock, scheduled_at, hold::text, errors
        )
    ) not valid;

alter table {schema}.procrastinate_jobs
    drop constraint if exists procrastinate_jobs_names_check,
    drop constraint if exists procrastinate_jobs_args_check,
    drop constraint if exists procrastinate_jobs_locks_check,
    drop constraint if exists procrastinate_jobs_scheduled_at_check,
    drop constraint if exists procrastinate_jobs_hold_check,
    drop constraint if exists procrastinate_jobs_errors_check;

alter table {schema}.procrastinate_workers
    add column pid integer,
    add column version text,
    add column queues text[],
    add column busy integer,
    add column blocked_since timestamptz,
    add column trusted boolean;

alter table {schema}.procrastinate_periodic
    add column cron text,
    add column timezone text,
    add column queue_name text;
