"""Taking over the jobs of releases up to 3.x, from their tables in another schema: ``import``.

Rules

1. It is one transaction. What interrupts it leaves all tables as they were.
2. It locks the old tables against writes. So no old worker claims a job while it is taken over.
3. A job keeps its id. In the old table it is ``cancelled`` then (``failed`` if the old release
   knows no such status): no old worker runs it, and the next import does not see it.
4. A job that this release cannot take stays as it is, and is named. Jobs that run stay, too: they
   are the old workers'.
5. Nothing is deleted, and no other row of the old tables is changed.
6. New ids begin far above the old ones, so programs of the old release may go on to defer for a
   while, and another import takes what they have deferred.
7. The triggers of the old tables find their names by the search_path. So the old schema comes first
   in it while old rows are changed, and that statement gives the schema of each name of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from procrastinate.connector import Rows
from procrastinate.drive import Flow, Request, Script, Step, Steps
from procrastinate.errors import ConnectorException, SchemaError
from procrastinate.model.text.printable import counted
from procrastinate.storage.migrating import IN_USE
from procrastinate.storage.old_tables import OldTables, look

LOCKS_WITHIN = 10  # seconds
LAST_ID = 2**63 - 1  # of a bigint
#: How far above the old ids new ones begin.
ROOM = 1_000_000
#: Ids in a report, at most, of those that stay for one reason.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Left:
    """Jobs that stay in the old table for a ``reason``: how many, and the first of their ids."""

    reason: str
    count: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What `import_jobs` has done, or would do.

    ``ready`` and ``scheduled`` jobs are taken over, ``ended`` ones copied, and so are the marks of
    ``schedules``. ``running`` jobs stay with their workers, and ``left`` are those that this
    release cannot take. Ids of new jobs are above ``ids_above``.
    """

    ready: int
    scheduled: int
    ended: int
    schedules: int
    running: int
    left: tuple[Left, ...]
    ids_above: int

    @property
    def waiting(self) -> int:
        """How many jobs that wait are taken over."""
        return self.ready + self.scheduled


def prepare(source: str) -> Steps[int]:
    """Let new ids begin above the old ones, if they do not; return above which they begin.

    Raises `SchemaError`.
    """
    old: OldTables = yield Step(look(source))
    above: int = yield Step(_move_ids(old))
    return above


def import_jobs(
    source: str, *, history: bool = False, leave_running: bool = False, dry_run: bool = False
) -> Steps[Imported]:
    """Take over the jobs that wait in the tables of an old release. Raises `SchemaError`."""
    old: OldTables = yield Step(look(source))
    flow = _survey(old, history) if dry_run else _import(old, history, leave_running)
    done: Imported
    try:
        done = yield Step(flow, transaction=True)
    except ConnectorException as exc:
        if exc.sqlstate not in IN_USE:
            raise
        raise SchemaError(
            f"the tables in the schema {source} were not to be had within {LOCKS_WITHIN} s, because"
            " transactions have them in use: end these, or import later; nothing was changed"
        ) from exc
    return done


def are_running(count: int, source: str) -> str:
    """Say why nothing is imported while jobs run, and what to do."""
    verb = "is" if count == 1 else "are"
    return (
        f"{counted(count, 'job')} in the schema {source} {verb} running: stop the old workers, and"
        " import again. If they are not to be stopped, or died long ago, leave behind what runs by"
        " --leave-running (leave_running=True)"
    )


# What is done


def _import(old: OldTables, history: bool, leave_running: bool) -> Flow[Imported]:
    ((is_first,),) = yield Request("try_lock_migrations")
    if not is_first:
        raise SchemaError(
            "another process imports jobs or changes the schema: let it end, and import again"
        )
    yield _script("the locks", old.sql(_LOCK))
    running = yield from _running(old)
    if running and not leave_running:
        raise SchemaError(are_running(running, old.schema))
    above = yield from _move_ids(old)
    rows = yield from _take(old)
    ready = sum(row[1] for row in rows)
    scheduled = sum(row[2] for row in rows)
    ended = (yield _script("the history", old.sql(_COPY))) if history else []
    schedules = yield _script("the schedules", old.sql(_MARK))
    left = yield from _left(old)
    copied = int(ended[0][0]) if ended else 0
    return Imported(ready, scheduled, copied, int(schedules[0][0]), running, left, above)


def _take(old: OldTables, *, which: str = "") -> Flow[Rows]:
    """Take jobs over, with the search_path that the old triggers need."""
    yield _script("the search_path", old.sql(_ENTER))
    rows = yield _script("the jobs", old.sql(_TAKE.replace("{which}", which), qualified=True))
    yield _script("the former search_path", _LEAVE)
    return rows


def _rehearse(old: OldTables) -> Flow[None]:
    """Take one job over, and undo it: what would fail fails now."""
    yield Request("set_savepoint")
    yield _script("the limit", _LIMIT)
    yield from _take(old, which=_ONE)
    yield Request("return_to_savepoint")


def _survey(old: OldTables, history: bool) -> Flow[Imported]:
    """Return what `_import` would do."""
    running = yield from _running(old)
    yield from _rehearse(old)
    rows = yield _script("the jobs", old.sql(_WOULD_TAKE))
    ((ready, scheduled),) = rows
    ended = (yield _script("the history", old.sql(_WOULD_COPY))) if history else []
    schedules = yield _script("the schedules", old.sql(_WOULD_MARK))
    left = yield from _left(old)
    above = yield from _ids(old)
    copied = int(ended[0][0]) if ended else 0
    return Imported(
        *(int(ready), int(scheduled), copied, int(schedules[0][0]), running, left),
        above[1] if above[0] <= above[2] else above[0],
    )


def _script(name: str, text: str) -> Request:
    """Return a script without a limit of the role's: it may be about millions of jobs."""
    return Script(name, text).under(
        transaction_isolation="read committed", statement_timeout="0", jit="off"
    )


def _running(old: OldTables) -> Flow[int]:
    ((running,),) = yield _script("the running jobs", old.sql(_RUNNING))
    return int(running)


def _left(old: OldTables) -> Flow[tuple[Left, ...]]:
    rows = yield _script("the jobs that stay", old.sql(_LEFT))
    return tuple(Left(reason, int(count), tuple(ids)) for reason, count, ids in rows)


def _ids(old: OldTables) -> Flow[tuple[int, int, int]]:
    """Return the last new id, that from which on there is room, and the last old id."""
    ((new, last),) = yield _script("the ids", old.sql(_LAST_IDS))
    if int(last) > LAST_ID - 2 * ROOM:
        raise SchemaError(
            f"the old id {int(last):,} leaves no room for new ids above it: delete that job,"
            " or give it another id and let its sequence begin anew; nothing was changed"
        )
    return int(new), int(last) + ROOM, int(last)


def _move_ids(old: OldTables) -> Flow[int]:
    """Let new ids begin above the old ones, if they do not.

    A sequence that is above is not touched: another session may draw from it meanwhile.
    """
    new, above, last = yield from _ids(old)
    if new > last:
        return new
    yield _script("the new ids", f"select setval('{{schema}}.procrastinate_jobs_id_seq', {above})")
    return above


_LIMIT = f"set local lock_timeout = '{LOCKS_WITHIN}s'"

_LOCK = f"""
{_LIMIT};
lock table {{old}}.procrastinate_jobs, {{old}}.procrastinate_periodic_defers
    in share row exclusive mode;
"""

_RUNNING = """
select count(*) from {old}.procrastinate_jobs as old
where old.status::text in ('doing', 'aborting')
"""

_LEFT = f"""
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

_WOULD_TAKE = """
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
_ENTER = """
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

_LEAVE = """
select pg_catalog.set_config(
    'search_path', pg_catalog.current_setting('procrastinate.search_path'), true
)
"""

#: Which job is tried: one that nobody is at, so that nobody waits.
_ONE = "limit 1 for update of old skip locked"

#: A job was deferred when its first event says so. What another session inserts meanwhile with the
#: same id or queueing lock keeps a job where it is.
_TAKE = """
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

_ENDED = """
    from {old}.procrastinate_jobs as old
    where old.status::text in ('succeeded', 'failed', 'cancelled', 'aborted')
        and {misfit} is null
        and not exists (select from {schema}.procrastinate_jobs as job where job.id = old.id)
"""

_WOULD_COPY = f"select count(*) {_ENDED}"

#: Before 2.6, a job that was cancelled had failed, and only its event says so.
_COPY = f"""
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
    from (select old.* {_ENDED}) as old
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
_TICKS = """
    select
        mark.task_name, mark.periodic_id, to_timestamp(max(mark.defer_timestamp)) as tick,
        (array_agg(mark.job_id order by mark.defer_timestamp desc))[1] as job_id
    from {old}.procrastinate_periodic_defers as mark
    where mark.defer_timestamp between 0 and 253402128000 and mark.task_name <> ''
    group by mark.task_name, mark.periodic_id
"""

_WOULD_MARK = f"select count(*) from ({_TICKS}) as ticks"

_MARK = f"""
with ticks as ({_TICKS}),
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

_LAST_IDS = """
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
