"""Taking over the jobs of releases up to 3.x, from their tables in another schema: ``import``.

The statements are in `procrastinate.storage.import_texts`.

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
from procrastinate.storage import import_texts as texts
from procrastinate.storage.migrating import IN_USE
from procrastinate.storage.old_tables import OldTables, look

LAST_ID = 2**63 - 1  # of a bigint
#: How far above the old ids new ones begin.
ROOM = 1_000_000


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
            f"the tables in the schema {source} were not to be had within {texts.LOCKS_WITHIN} s,"
            " because transactions have them in use: end these, or import later; nothing was"
            " changed"
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
    yield _script("the locks", old.sql(texts.LOCK))
    running = yield from _running(old)
    if running and not leave_running:
        raise SchemaError(are_running(running, old.schema))
    above = yield from _move_ids(old)
    rows = yield from _take(old)
    ready = sum(row[1] for row in rows)
    scheduled = sum(row[2] for row in rows)
    ended = (yield _script("the history", old.sql(texts.COPY))) if history else []
    schedules = yield _script("the schedules", old.sql(texts.MARK))
    left = yield from _left(old)
    copied = int(ended[0][0]) if ended else 0
    return Imported(ready, scheduled, copied, int(schedules[0][0]), running, left, above)


def _take(old: OldTables, *, which: str = "") -> Flow[Rows]:
    """Take jobs over, with the search_path that the old triggers need."""
    yield _script("the search_path", old.sql(texts.ENTER))
    rows = yield _script("the jobs", old.sql(texts.TAKE.replace("{which}", which), qualified=True))
    yield _script("the former search_path", texts.LEAVE)
    return rows


def _rehearse(old: OldTables) -> Flow[None]:
    """Take one job over, and undo it: what would fail fails now."""
    yield Request("set_savepoint")
    yield _script("the limit", texts.LIMIT)
    yield from _take(old, which=texts.ONE)
    yield Request("return_to_savepoint")


def _survey(old: OldTables, history: bool) -> Flow[Imported]:
    """Return what `_import` would do."""
    running = yield from _running(old)
    yield from _rehearse(old)
    rows = yield _script("the jobs", old.sql(texts.WOULD_TAKE))
    ((ready, scheduled),) = rows
    ended = (yield _script("the history", old.sql(texts.WOULD_COPY))) if history else []
    schedules = yield _script("the schedules", old.sql(texts.WOULD_MARK))
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
    ((running,),) = yield _script("the running jobs", old.sql(texts.RUNNING))
    return int(running)


def _left(old: OldTables) -> Flow[tuple[Left, ...]]:
    rows = yield _script("the jobs that stay", old.sql(texts.LEFT))
    return tuple(Left(reason, int(count), tuple(ids)) for reason, count, ids in rows)


def _ids(old: OldTables) -> Flow[tuple[int, int, int]]:
    """Return the last new id, that from which on there is room, and the last old id."""
    ((new, last),) = yield _script("the ids", old.sql(texts.LAST_IDS))
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
