-- How far running jobs say that they are. The table is unlogged: a report costs no WAL, a crash of the
-- server forgets all of them, and a standby cannot read them.

-- fragment: reported_anywhere
progress.partition = %(partition)s::smallint

-- distributed fragment: reported_anywhere
-- The reports of all partitions, unless one is named.
progress.partition = any(%(partitions)s::smallint[])

-- name: report_progress :exec
-- settings: patience, array_nulls, asynchronous
-- Writes how far jobs are that this worker holds, each by its lease. The ages say, in microseconds,
-- how long before this statement that was said: the worker's clock is never compared with the server's.
insert into {schema}.procrastinate_progress as progress (
    job_id, partition, lease, fraction, message, data, updated_at
)
select
    job.id, job.partition, job.lease, said.millionths::float8 / 1000000::float8, said.message,
    said.data::jsonb,
    statement_timestamp() - said.age_us::float8 * interval '1 microsecond'
from unnest(
    %(ids)s::bigint[], %(leases)s::integer[], {>with_nulls list="%(millionths)s" type="integer"},
    {>with_nulls list="%(messages)s" type="text"},
    {>with_nulls list="%(data)s" type="text"},
    %(ages_us)s::bigint[]
) as said(id, lease, millionths, message, data, age_us)
join {schema}.procrastinate_jobs as job on job.id = said.id
where job.partition = %(partition)s::smallint and {>by_id} and {>is_held} and job.lease = said.lease
on conflict (job_id, partition) do update
set lease = excluded.lease, fraction = excluded.fraction, message = excluded.message,
    data = excluded.data, updated_at = excluded.updated_at
where progress.lease <= excluded.lease

-- name: forget_progress :exec
-- settings: patience
-- Removes what attempts have reported that are over. A later attempt's report stays.
delete from {schema}.procrastinate_progress as progress
using unnest(%(ids)s::bigint[], %(leases)s::integer[]) as ended(id, lease)
where progress.partition = %(partition)s::smallint
    and progress.job_id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))
    and progress.job_id = ended.id and progress.lease <= ended.lease

-- name: sees_progress :one
-- Whether this connection can read the table: not on a standby, nor without the right to. To try would
-- spoil the transaction of a caller.
select (
    coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('{schema}.procrastinate_progress'), 'select'), false)
    and not pg_is_in_recovery()
)::integer

-- name: list_progress :many
-- Returns (job, lease, millionths, message, data, time) of what these jobs have reported.
select
    progress.job_id, progress.lease,
    (progress.fraction::float8 * 1000000::float8)::integer as millionths,
    progress.message, progress.data::text as data,
    {>readable moment="progress.updated_at"} as updated_at
from {schema}.procrastinate_progress as progress
where {>reported_anywhere}
    and progress.job_id = any(array(select pg_catalog.unnest(%(ids)s::bigint[])))

-- name: reported_partitions :many
-- settings: one_connection
-- Returns the partitions that have reports. Mostly none has.
select distinct progress.partition
from {schema}.procrastinate_progress as progress
where {>reported_anywhere}

-- name: prune_progress :exec
-- settings: patience
-- Removes the reports of attempts that no worker has under way: theirs died, or could not remove them.
-- (`offset 0` and the CASE keep the planner from reading all jobs, or all that run with their dead
-- entries, instead of looking up by id those that have reported.)
delete from {schema}.procrastinate_progress as progress
where progress.partition = %(partition)s::smallint and not exists (
    select from {schema}.procrastinate_jobs as job
    where job.id = progress.job_id and job.partition = %(partition)s::smallint
        and case when job.status in ({held}) and job.lease = progress.lease then true else false end
    offset 0
)
