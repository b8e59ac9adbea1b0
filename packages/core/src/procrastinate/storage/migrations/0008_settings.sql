-- Whether the database is distributed, and locks that no job holds.
-- compatible-from: 4
--
-- Locks: access exclusive on locks, for milliseconds: only the catalog changes, no row is read.

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

-- As in every migration: see storage/migrating.py.
set local lock_timeout = '10s';
lock table {schema}.procrastinate_locks in share update exclusive mode;
set local lock_timeout = '300ms';
lock table {schema}.procrastinate_locks;

-- On a distributed database a lock's row is made before a job holds it.
alter table {schema}.procrastinate_locks
    alter column job_id drop not null;
