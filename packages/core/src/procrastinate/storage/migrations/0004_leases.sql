-- A lease for each claim, which fences a worker's writes; and what workers tell of themselves.
-- compatible-from: 4
--
-- Locks: access exclusive on jobs and workers, for milliseconds: only the catalog changes, no row is
-- rewritten (a constant default is not written into old rows). The update before it reads all jobs,
-- changes the few that were retried by hand, and holds up no insert. (The index on unknown_since, which
-- was made here, is made by migration 6, outside of a transaction.)
--
-- Older code reads and writes attempts_forgiven, so its claims fail from here on: stop its workers
-- first. What they have running they can still finish, because their fence is the number of attempts.

-- `attempts` is a plain count from now on, and a retry by hand sets it to 0. Not for a running job:
-- its worker, if it is an older one, is fenced by that number.
update {schema}.procrastinate_jobs
set attempts = attempts - attempts_forgiven
where attempts_forgiven > 0 and status <> 'doing';

-- As in every migration: see storage/migrating.py.
set local lock_timeout = '10s';
lock table {schema}.procrastinate_jobs in share update exclusive mode;
set local lock_timeout = '300ms';
lock table {schema}.procrastinate_workers;
lock table {schema}.procrastinate_jobs;

alter table {schema}.procrastinate_jobs
    drop column attempts_forgiven,
    -- One more for each claim; it never falls. An integer, as `attempts`, which grows with it: a bigint
    -- made tables 4 % larger. Migration 1 makes it in new tables, before the columns of variable length:
    -- what stands between the first and the last column that a claim changes is repeated in its WAL. As
    -- the last column, a job's whole life takes 986 bytes instead of 954, with 600 bytes of arguments
    -- 2,430 instead of 1,980. Only databases from before the first release have it there.
    add column if not exists lease integer not null default 0,
    -- When it was first handed back by a worker that knows no task of its name.
    add column unknown_since timestamptz,
    -- How often in a row it was handed back, not begun, to be claimed later; null for most.
    add column bounces smallint;

alter table {schema}.procrastinate_workers
    add column host text,
    add column concurrency integer,
    add column task_names text[],  -- that it knows
    -- Of a dead worker: whether it held one job, and no other worker of its host died with it.
    add column alone boolean;
