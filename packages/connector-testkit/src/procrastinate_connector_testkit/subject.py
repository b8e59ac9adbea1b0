"""The connector under test, and the one interface through which behaviours use either kind.

Rules

1. Every method that may wait is a coroutine. Those of `SyncSubject` call the connector directly
   and never suspend, so that a behaviour runs to its end in one thread without an event loop.
   What happens at the same time (`together`) happens in threads there, in tasks on a loop.
2. What the kit does to the database from outside goes through the adapter's referee.
"""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar, cast

from procrastinate import drive
from procrastinate.connector import (
    AsyncConnector,
    AsyncExecutor,
    AsyncSessionExecutor,
    Binder,
    Connector,
    Executor,
    Query,
    Rows,
    SessionExecutor,
    SyncConnector,
    Value,
)
from procrastinate.drive import Prepare
from procrastinate.model.partitions import Partitions
from procrastinate.storage.statements import Statements
from procrastinate_connector_testkit import driving
from procrastinate_connector_testkit.adapter import Adapter, Binds, Block
from procrastinate_connector_testkit.driving import (
    Signal,
    TaskSignal,
    ThreadSignal,
    entered,
    in_thread,
)

T = TypeVar("T")


class Session(abc.ABC):
    """An executor of either kind."""

    @abc.abstractmethod
    async def execute(self, query: Query) -> Rows: ...

    @abc.abstractmethod
    async def flow(self, flow: drive.Flow[T]) -> T:
        """Run a storage flow with core's own driver."""

    @abc.abstractmethod
    def sever(self) -> None:
        """Shut the connection down, from any branch of `together`."""

    async def sql(self, text: str, **params: Value) -> Rows:
        return await self.execute(Query("testkit", text, params))

    async def value(self, text: str, **params: Value) -> Any:
        """Return the only column of the only row."""
        rows = await self.sql(text, **params)
        assert len(rows) == 1, f"one row was asked for, and {len(rows)} came: {rows!r}"
        assert len(rows[0]) == 1, f"one column was asked for: {rows!r}"
        return rows[0][0]


class _SyncSession(Session):
    def __init__(self, executor: Executor, prepare: Prepare) -> None:
        self.executor = executor
        self.prepare = prepare

    def sever(self) -> None:
        cast(SessionExecutor, self.executor).sever()

    async def execute(self, query: Query) -> Rows:
        return self.executor.execute(query)

    async def flow(self, flow: drive.Flow[T]) -> T:
        return drive.run(flow, self.executor, self.prepare)


class _AsyncSession(Session):
    def __init__(self, executor: AsyncExecutor, prepare: Prepare) -> None:
        self.executor = executor
        self.prepare = prepare

    def sever(self) -> None:
        cast(AsyncSessionExecutor, self.executor).sever()

    async def execute(self, query: Query) -> Rows:
        return await self.executor.execute(query)

    async def flow(self, flow: drive.Flow[T]) -> T:
        return await drive.run_async(flow, self.executor, self.prepare)


class Subject(abc.ABC):
    """A connector that is driven as behaviours need it."""

    way: str

    def __init__(self, adapter: Adapter, dsn: str, connector: Connector) -> None:
        self.adapter = adapter
        self.dsn = dsn
        self.connector = connector
        self.statements = Statements(connector.schema)
        self._others: list[Subject] = []
        self._referee: Subject | None = None

    def look_at(self, partitions: Partitions, partition: int) -> None:
        """Take the database for one with these partitions, and speak of one of them."""
        self.statements = Statements(self.connector.schema, partitions).at(partition)

    # Driving

    @abc.abstractmethod
    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, from plain code."""

    @abc.abstractmethod
    async def together(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        """Run coroutines at the same time and return their results; raise the first error."""

    @abc.abstractmethod
    async def sleep(self, seconds: float) -> None: ...

    @abc.abstractmethod
    def signal(self) -> Signal: ...

    # The connector

    @abc.abstractmethod
    async def open(self, pool: Any = None) -> None: ...

    @abc.abstractmethod
    async def close(self) -> None: ...

    @abc.abstractmethod
    def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> Block[Session]: ...

    @abc.abstractmethod
    def bind(self, connection: Any, binder: Binder | None = None) -> Session:
        """Return a session in the caller's transaction, by the adapter's binder or another one."""

    def binder(self, connection: Any) -> Binder:
        """Return what binds a connection."""
        assert isinstance(self.adapter, Binds)
        return self.adapter.binder(connection)

    @abc.abstractmethod
    def another(self, connector: Connector, dsn: str | None = None) -> Subject:
        """Return another, unopened connector, driven alike and closed with this one."""

    # In short

    async def sql(self, text: str, **params: Value) -> Rows:
        """Run one query in a session of its own."""
        async with entered(self.session()) as session:
            return await session.sql(text, **params)

    async def value(self, text: str, **params: Value) -> Any:
        async with entered(self.session()) as session:
            return await session.value(text, **params)

    async def outside(self, text: str, **params: Value) -> Rows:
        """Run one query through the referee."""
        return await (await self.referee()).sql(text, **params)

    async def referee(self) -> Subject:
        """Return the healthy connector beside this one, opened."""
        if self._referee is None:
            referee = self.another(self.adapter.referee(self.dsn))
            await referee.open()
            self._referee = referee
        return self._referee

    async def eventually(self, what: str, condition: Callable[[], Awaitable[Any]]) -> Any:
        """Poll until a condition is true, and return its value."""
        deadline = time.monotonic() + driving.PATIENCE
        while True:
            value = await condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"{what}: not so after {driving.PATIENCE:g} seconds"
            await self.sleep(0.01)

    async def end(self) -> None:
        """Close this connector and all others made beside it."""
        async with AsyncExitStack() as stack:
            for other in self._others:
                stack.push_async_callback(other.end)
            stack.push_async_callback(self.close)


class SyncSubject(Subject):
    """A synchronous connector."""

    way = "sync"
    connector: SyncConnector

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        __tracebackhide__ = True
        return in_thread(work).result_in_time()

    async def together(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        branches = [in_thread(each) for each in work]
        return [branch.result_in_time() for branch in branches]

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop here

    def signal(self) -> Signal:
        return ThreadSignal()

    async def open(self, pool: Any = None) -> None:
        self.connector.open(pool)

    async def close(self) -> None:
        self.connector.close()

    @asynccontextmanager
    async def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AsyncIterator[Session]:
        options = {"transaction": transaction, "read_only": read_only, "timeout": timeout}
        with self.connector.session(**cast(Any, options)) as executor:
            yield _SyncSession(executor, self.statements)

    def bind(self, connection: Any, binder: Binder | None = None) -> Session:
        binder = binder or self.binder(connection)
        assert binder.bind is not None, f"{binder.words}: not for synchronous calls"
        return _SyncSession(binder.bind(connection), self.statements)

    def another(self, connector: Connector, dsn: str | None = None) -> SyncSubject:
        subject = SyncSubject(self.adapter, dsn or self.dsn, synchronous(connector))
        self._others.append(subject)
        return subject


class AsyncSubject(Subject):
    """An asynchronous connector, on the loop of a runner."""

    way = "async"
    connector: AsyncConnector

    def __init__(
        self, adapter: Adapter, dsn: str, connector: Connector, runner: asyncio.Runner
    ) -> None:
        super().__init__(adapter, dsn, connector)
        self.runner = runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        __tracebackhide__ = True

        async def in_time() -> T:
            __tracebackhide__ = True
            async with asyncio.timeout(driving.DEADLINE):
                return await work

        return self.runner.run(in_time())

    async def together(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        return list(await asyncio.gather(*work))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def signal(self) -> Signal:
        return TaskSignal()

    async def open(self, pool: Any = None) -> None:
        await self.connector.open_async(pool)

    async def close(self) -> None:
        await self.connector.close_async()

    @asynccontextmanager
    async def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AsyncIterator[Session]:
        options = {"transaction": transaction, "read_only": read_only, "timeout": timeout}
        async with self.connector.session_async(**cast(Any, options)) as executor:
            yield _AsyncSession(executor, self.statements)

    def bind(self, connection: Any, binder: Binder | None = None) -> Session:
        binder = binder or self.binder(connection)
        assert binder.bind_async is not None, f"{binder.words}: not for asynchronous calls"
        return _AsyncSession(binder.bind_async(connection), self.statements)

    def another(self, connector: Connector, dsn: str | None = None) -> AsyncSubject:
        subject = AsyncSubject(self.adapter, dsn or self.dsn, connector, self.runner)
        self._others.append(subject)
        return subject


def synchronous(connector: Connector) -> SyncConnector:
    """Return the synchronous connector itself, or an asynchronous one's counterpart."""
    if isinstance(connector, AsyncConnector):
        connector = connector.sync_connector()
    assert isinstance(connector, SyncConnector), f"{connector!r} is not a SyncConnector"
    return connector


def ways_of(connector_class: type[Connector]) -> Sequence[str]:
    """Return the halves of a connector, its own first."""
    return ("async", "sync") if issubclass(connector_class, AsyncConnector) else ("sync",)
