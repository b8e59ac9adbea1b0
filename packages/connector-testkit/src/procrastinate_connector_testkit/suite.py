"""Assembling the tests of one connector from what its type and its adapter declare."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest

from procrastinate.connector import AsyncConnector, Connector, ListeningConnector, SyncConnector
from procrastinate_connector_testkit import databases
from procrastinate_connector_testkit.adapter import Adapter, Binds, LimitsPool, TakesPools
from procrastinate_connector_testkit.behaviours import (
    bind,
    cancellation,
    errors,
    forks,
    limits,
    listening,
    loops,
    losses,
    opening,
    plans,
    pools,
    queue_by_hand,
    queue_claim,
    queue_defer,
    queue_finish,
    queue_locks,
    queue_pauses,
    queue_periodic,
    queue_recovery,
    queue_search,
    results,
    schema,
    sessions,
    threads,
    values,
    waiting,
)
from procrastinate_connector_testkit.databases import Database
from procrastinate_connector_testkit.queue import Queue
from procrastinate_connector_testkit.subject import (
    AsyncSubject,
    Subject,
    SyncSubject,
    synchronous,
    ways_of,
)

_DATABASE = pytest.StashKey[Database]()


class Suite:
    """The fixtures of an assembled suite."""

    adapter: ClassVar[Adapter]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "way" in metafunc.fixturenames:
            ways = ways_of(self.adapter.connector_class)
            own = getattr(metafunc.function, "ways", "both") == "own"
            metafunc.parametrize("way", ways[:1] if own else ways)
        if "pool_kind" in metafunc.fixturenames and isinstance(self.adapter, TakesPools):
            metafunc.parametrize("pool_kind", list(self.adapter.pools()))
        if "connection_kind" in metafunc.fixturenames and isinstance(self.adapter, Binds):
            metafunc.parametrize("connection_kind", list(self.adapter.connections()))

    @pytest.fixture
    def db(self, request: pytest.FixtureRequest, way: str) -> Iterator[Subject]:
        """The connector under test, open, on a database of the suite's own."""
        database = _database(request, self.adapter)
        with ExitStack() as stack:
            subject = _subject(self.adapter, way, database.dsn, stack)
            stack.callback(lambda: subject.run(subject.end()))
            subject.run(subject.open())
            yield subject

    @pytest.fixture
    def queue(self, request: pytest.FixtureRequest, db: Subject) -> Queue:
        """The queue's tables, empty, through the connector under test."""
        if not self.adapter.connector_class.runs_sql:
            return Queue(db)
        database = _database(request, self.adapter)
        db.run(_prepare(db, database))
        key = database.key_for(request.node.name)
        if key is not None:
            db.look_at(database.partitions, database.partitions.of_key(key))
        return Queue(db, key=key)


async def _prepare(db: Subject, database: Database) -> None:
    referee = Queue(await db.referee())
    if not database.has_schema:
        await referee.migrate()
        if database.is_to_be_spread():
            database.partitions = await referee.spread()
        database.has_schema = True
    await referee.empty()


def _subject(adapter: Adapter, way: str, dsn: str, stack: ExitStack) -> Subject:
    connector = adapter.connector(dsn)
    if way == "sync":
        return SyncSubject(adapter, dsn, synchronous(connector))
    runner = stack.enter_context(asyncio.Runner(loop_factory=adapter.event_loop))
    return AsyncSubject(adapter, dsn, connector, runner)


def _database(request: pytest.FixtureRequest, adapter: Adapter) -> Database:
    if not adapter.connector_class.runs_sql:
        return Database("")
    suite = request.node.getparent(pytest.Class)
    if _DATABASE not in suite.stash:
        server = databases.server_dsn(request)
        name = databases.new_name()
        suite.stash[_DATABASE] = Database(_on_server(adapter, server, databases.create, name))

        def drop() -> None:
            # First, because the suite may go on later: pytest-xdist runs tests in any order.
            del suite.stash[_DATABASE]
            _on_server(adapter, server, databases.drop, name)

        suite.addfinalizer(drop)
    database: Database = suite.stash[_DATABASE]
    return database


def _on_server(adapter: Adapter, dsn: str, work: Any, name: str) -> Any:
    with ExitStack() as stack:
        way = ways_of(adapter.connector_class)[0]
        if way == "sync":
            subject: Subject = SyncSubject(adapter, dsn, synchronous(adapter.referee(dsn)))
        else:
            runner = stack.enter_context(asyncio.Runner(loop_factory=adapter.event_loop))
            subject = AsyncSubject(adapter, dsn, adapter.referee(dsn), runner)
        stack.callback(lambda: subject.run(subject.end()))
        subject.run(subject.open())
        return subject.run(work(subject, name))


#: Every connector, also one that knows only core's named statements.
_QUEUE: tuple[type, ...] = (
    opening.Opening,
    queue_defer.Deferring,
    queue_claim.Claiming,
    queue_locks.Locks,
    queue_pauses.Pausing,
    queue_finish.Finishing,
    queue_recovery.Recovery,
    queue_search.Searching,
    queue_periodic.Periodics,
    queue_by_hand.ByHand,
)
#: Those that run any SQL.
_SQL: tuple[type, ...] = (
    values.Values,
    results.Results,
    errors.Errors,
    sessions.Sessions,
    limits.Limits,
    plans.Plans,
    losses.Losses,
    threads.Threads,
    schema.Schema,
    waiting.Waiting,
    *forks.FORKS,
)


def suite_for(adapter: Adapter) -> type[Suite]:
    """Return the test class for a connector; bind it to a name that pytest collects (``Test...``).

    Subclass it to add tests of your own. Raises TypeError for an adapter that contradicts itself.
    """
    kind = getattr(adapter, "connector_class", None)
    if not (isinstance(kind, type) and issubclass(kind, SyncConnector | AsyncConnector)):
        raise TypeError(
            f"{type(adapter).__name__}.connector_class must be a subclass of SyncConnector or"
            f" AsyncConnector, not {kind!r}"
        )
    parts = [*_QUEUE, *(_SQL if kind.runs_sql else ()), *_declared(adapter, kind)]
    return type(f"{kind.__name__}Suite", (*parts, Suite), {"adapter": adapter})


def _declared(adapter: Adapter, kind: type[Connector]) -> Iterator[type]:
    if not kind.always_open:
        yield opening.NeedsOpening
    if kind.runs_sql and adapter.name is not None:
        yield opening.HasUrls
    is_async = issubclass(kind, AsyncConnector)
    if is_async and kind.runs_sql:
        yield cancellation.Cancellation
        yield from loops.LOOPS
    if issubclass(kind, ListeningConnector):
        yield listening.Listening if kind.runs_sql else listening.ListeningToTheQueue
    if isinstance(adapter, LimitsPool):
        yield pools.OwnPool
    if isinstance(adapter, TakesPools):
        yield pools.ForeignPools
    if isinstance(adapter, Binds):
        yield bind.Bind if kind.runs_sql else bind.BindQueue
        if kind.runs_sql:
            yield limits.BindLimits
