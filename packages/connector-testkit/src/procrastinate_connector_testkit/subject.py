"""The connector under test, and the one interface through which behaviours use either kind.

Rules

1. Every method that may wait is a coroutine. Those of `SyncSubject` call the connector directly
   and never suspend, so that a behaviour runs to its end in one thread without an event loop.
   What happens at the same time (`together`) happens in threads there, in tasks on a loop.
2. Nothing hangs: a behaviour that takes longer than `DEADLINE` fails.
3. What the kit does to the database from outside goes through the adapter's referee.
"""

from __future__ import annotations

import abc
import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar, cast

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
from procrastinate.storage.statements import Statements
from procrastinate_connector_testkit.adapter import Adapter, Binds, Block

DEADLINE = 30.0  # seconds for one behaviour
PATIENCE = 10.0  # seconds until what should be so has to be so

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


class Signal(abc.ABC):
    """An event that branches of `together` wait for."""

    @abc.abstractmethod
    def set(self) -> None: ...

    @abc.abstractmethod
    async def wait(self) -> None: ...


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
        deadline = time.monotonic() + PATIENCE
        while True:
            value = await condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"{what}: not so after {PATIENCE:g} seconds"
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
        return _in_thread(work).result_in_time()

    async def together(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        branches = [_in_thread(each) for each in work]
        return [branch.result_in_time() for branch in branches]

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop here

    def signal(self) -> Signal:
        return _ThreadSignal()

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
            async with asyncio.timeout(DEADLINE):
                return await work

        return self.runner.run(in_time())

    async def together(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        return list(await asyncio.gather(*work))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def signal(self) -> Signal:
        return _TaskSignal()

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


@asynccontextmanager
async def entered(block: Block[T]) -> AsyncIterator[T]:
    """Enter a block of either kind."""
    if isinstance(block, AbstractAsyncContextManager):
        async with block as value:
            yield value
    else:
        with block as value:
            yield value


async def called(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of either kind and return its result."""
    result = function(*args)
    return await result if inspect.isawaitable(result) else result


class _InThread(Generic[T]):
    """A coroutine that never suspends, under way in a thread of its own."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.work = work
        self.outcome: Future[T] = Future()
        self.deadline = time.monotonic() + DEADLINE
        threading.Thread(target=self._run, name="testkit", daemon=True).start()

    def _run(self) -> None:
        __tracebackhide__ = True
        try:
            self.outcome.set_result(run_unsuspended(self.work))
        except BaseException as exc:
            self.outcome.set_exception(exc)

    def result_in_time(self) -> T:
        __tracebackhide__ = True
        try:
            return self.outcome.result(max(0.1, self.deadline - time.monotonic()))
        except TimeoutError:
            if self.outcome.done():
                raise
        raise AssertionError(f"it did not end within {DEADLINE:g} seconds")


def _in_thread(work: Coroutine[Any, Any, T]) -> _InThread[T]:
    return _InThread(work)


def run_unsuspended(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits for a loop."""
    __tracebackhide__ = True
    try:
        work.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    work.close()
    raise RuntimeError("a behaviour waited for an event loop that a synchronous connector lacks")


class _ThreadSignal(Signal):
    def __init__(self) -> None:
        self.event = threading.Event()

    def set(self) -> None:
        self.event.set()

    async def wait(self) -> None:
        assert self.event.wait(PATIENCE), f"the signal did not come within {PATIENCE:g} seconds"


class _TaskSignal(Signal):
    def __init__(self) -> None:
        self.event = asyncio.Event()

    def set(self) -> None:
        self.event.set()

    async def wait(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.event.wait()


def ways_of(connector_class: type[Connector]) -> Sequence[str]:
    """Return the halves of a connector, its own first."""
    return ("async", "sync") if issubclass(connector_class, AsyncConnector) else ("sync",)
