"""The statements of an import, as `procrastinate.storage.importing` sends them.

Names in braces are filled in by `procrastinate.storage.old_tables.OldTables.sql`.
"""

from __future__ import annotations

LOCKS_WITHIN = 10  # seconds that an import waits for the locks of the old tables
#: Ids in a report, at most, of those that stay for one reason.
SHOWN = 5

LIMIT = f"set local lock_timeout = '{LOCKS_WITHIN}s'"

LOCK = f"""
{LIMIT};
lock table {{old}}.procrastinate_jobs, {{old}}.procrastinate_periodic_defers
    in share row exclusive mode;
"""

RUNNING = """
select count(*) from {old}.procrastinate_jobs as old
where old.status::text in ('doing', 'aborting')
"""

LEFT = f"""
select left_behind.reason, count(*), (array_agg(left_behind.id order by left_behind.id))[:{SHOWN}]
from (
    select old.id, {{reason}} as reason
    from {{old}}.procrastinate_jobs as old
    where old.status = 'todo'
) as left_behind
where left_behind.reason is not null
group by left_behind.reason
order by left_behind.reason
"""

WOULD_TAKE = """
select
    count(*) filter (where coalesce(taken.scheduled_at <= statement_timestamp(), true)),
    count(*) filter (where taken.scheduled_at > statement_timestamp())
from (
    select old.scheduled_at
    from {old}.procrastinate_jobs as old
    where old.status = 'todo' and {reason} is null
) as taken
"""

#: (No function or operator of the old schema goes before the server's own: pg_catalog is first.)
ENTER = """
select
    pg_catalog.set_config(
        'procrastinate.search_path', pg_catalog.current_setting('search_path'), true
    ),
    pg_catalog.set_config(
        'search_path',
        pg_catalog.concat_ws(
            ', ', 'pg_catalog', '{old_schema}',
            nullif(pg_catalog.current_setting('search_path'), '')
        ),
        true
    )
"""

LEAVE = """
select pg_catalog.set_config(
    'search_path', pg_catalog.current_setting('procrastinate.search_path'), true
)
"""

#: Which job is tried: one that is not locked, so that the trial does not wait.
ONE = "limit 1 for update of old skip locked"

#: A job was deferred when its first event says so. What another session inserts meanwhile with the
#: same id or queueing lock keeps a job where it is.
TAKE = """
with taken as (
    insert into {schema}.procrastinate_jobs
        (id, priority, attempts, hold, deferred_at, scheduled_at, first_started_at, queue_name,
        task_name, lock, queueing_lock, args)
    select
        old.id, {priority}, old.attempts,
        case when old.scheduled_at > statement_timestamp()
            then 'schedule'::{schema}.procrastinate_hold end,
        coalesce(
            (
                select min(event.at) from {old}.procrastinate_events as event
                where event.job_id = old.id and event.type::text = 'deferred'
            ),
            statement_timestamp()
        ),
        old.scheduled_at,
        case when old.attempts > 0
            then (
                select min(event.at) from {old}.procrastinate_events as event
                where event.job_id = old.id and event.type::text = 'started'
            )
        end,
        old.queue_name, old.task_name, old.lock, old.queueing_lock, old.args
    from {old}.procrastinate_jobs as old
    where old.status = 'todo' and {reason} is null
    {which}
    on conflict do nothing
    returning id, queue_name, hold
),
marked as (
    update {old}.procrastinate_jobs as old
    set status = '{taken}'
    from taken
    where old.id = taken.id
    returning old.id
)
select
    taken.queue_name,
    count(*) filter (where taken.hold is null),
    count(*) filter (where taken.hold is not null),
    pg_catalog.pg_notify('procrastinate_jobs', taken.queue_name)::text,
    (select count(*) from marked)
from taken
group by taken.queue_name
"""

ENDED = """
    from {old}.procrastinate_jobs as old
    where old.status::text in ('succeeded', 'failed', 'cancelled', 'aborted')
        and {misfit} is null
        and not exists (select from {schema}.procrastinate_jobs as job where job.id = old.id)
"""

WOULD_COPY = f"select count(*) {ENDED}"

#: Before 2.6, a job that was cancelled had failed, and only its event says so.
COPY = f"""
with copied as (
    insert into {{schema}}.procrastinate_jobs
        (id, priority, attempts, status, deferred_at, scheduled_at, first_started_at, started_at,
        finished_at, queue_name, task_name, lock, queueing_lock, args)
    select
        old.id, {{priority}}, old.attempts,
        case when happened.is_cancelled then 'cancelled' else old.status::text end
            ::{{schema}}.procrastinate_job_status,
        coalesce(happened.deferred_at, happened.finished_at, statement_timestamp()),
        old.scheduled_at, nullif(happened.first_started_at, happened.started_at),
        happened.started_at,
        coalesce(happened.finished_at, statement_timestamp()),
        old.queue_name, old.task_name, old.lock, old.queueing_lock, old.args
    from (select old.* {ENDED}) as old
    cross join lateral (
        select
            min(event.at) filter (where event.type::text = 'deferred') as deferred_at,
            min(event.at) filter (where event.type::text = 'started') as first_started_at,
            max(event.at) filter (where event.type::text = 'started') as started_at,
            max(event.at) filter (
                where event.type::text in ('succeeded', 'failed', 'cancelled', 'aborted')
            ) as finished_at,
            bool_or(event.type::text = 'cancelled') as is_cancelled
        from {{old}}.procrastinate_events as event
        where event.job_id = old.id
    ) as happened
    on conflict do nothing
    returning id
)
select count(*) from copied
"""

#: The last tick of each schedule, whose seconds are within what every driver can read.
TICKS = """
    select
        mark.task_name, mark.periodic_id, to_timestamp(max(mark.defer_timestamp)) as tick,
        (array_agg(mark.job_id order by mark.defer_timestamp desc))[1] as job_id
    from {old}.procrastinate_periodic_defers as mark
    where mark.defer_timestamp between 0 and 253402128000 and mark.task_name <> ''
    group by mark.task_name, mark.periodic_id
"""

WOULD_MARK = f"select count(*) from ({TICKS}) as ticks"

MARK = f"""
with ticks as ({TICKS}),
marked as (
    insert into {{schema}}.procrastinate_periodic as known
        (task_name, periodic_id, done_until, last_tick, job_id)
    select
        ticks.task_name, ticks.periodic_id, ticks.tick, ticks.tick,
        (select job.id from {{schema}}.procrastinate_jobs as job where job.id = ticks.job_id)
    from ticks
    on conflict (task_name, periodic_id, partition) do update
    set done_until = greatest(known.done_until, excluded.done_until),
        last_tick = greatest(known.last_tick, excluded.last_tick),
        job_id = case
            when known.last_tick >= excluded.last_tick then known.job_id else excluded.job_id end
    returning known.task_name
)
select count(*) from marked
"""

LAST_IDS = """
select
    coalesce(pg_catalog.pg_sequence_last_value('{schema}.procrastinate_jobs_id_seq'::regclass), 0),
    greatest(
        coalesce(
            pg_catalog.pg_sequence_last_value(
                pg_catalog.pg_get_serial_sequence('{old}.procrastinate_jobs', 'id')::regclass
            ),
            0
        ),
        coalesce((select max(old.id) from {old}.procrastinate_jobs as old), 0)
    )
"""
