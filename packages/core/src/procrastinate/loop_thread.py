"""Plain calls on an asynchronous connector: an event loop in a thread serves them.

Rules

1. There is one loop for each connector, with a few connections. It is made when the connector is
   opened, and ends with it. No call of the application's own event loops waits for it or on it.
2. A forked child has neither the thread nor the right to use its connections: it leaves all of
   that to the parent and makes its own at the first session.
3. The thread is a daemon. So a program that ends without closing its app ends all the same.
4. How a call gets to the loop and back: see `procrastinate.loop_calls`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from procrastinate.connector import (
    AsyncConnector,
    AsyncSessionExecutor,
    Query,
    Rows,
    SessionExecutor,
    SyncConnector,
    begin,
)
from procrastinate.connector_tools import forks
from procrastinate.errors import AppNotOpen, ConfigurationError, InvalidOption
from procrastinate.loop_calls import LoopThread as LoopThread

T = TypeVar("T")

CONNECTIONS = 2  # of one connector


class LoopThreadConnector(SyncConnector):
    """A synchronous connector over a sibling of an asynchronous one. Threads may share it."""

    contract: ClassVar[int] = 2
    runs_on_a_loop: ClassVar[bool] = True

    def __init__(self, connector: AsyncConnector, *, connect_timeout: float | None = None) -> None:
        super().__init__(
            json_dumps=connector.json_dumps,
            json_loads=connector.json_loads,
            schema=connector.schema,
        )
        self._connect_timeout = connect_timeout
        self._sibling = self._sibling_of(connector)
        self._lock = threading.Lock()
        self._is_open = False
        self._served: _Served | None = None  # None as well in a child that has had no session yet
        forks.call_after_fork(self)

    @property
    def words(self) -> str:
        """What serves plain calls, for people."""
        return f"{type(self._sibling).__name__}, by an event loop in a thread"

    def _sibling_of(self, connector: AsyncConnector) -> AsyncConnector:
        return connector.sibling(max_connections=CONNECTIONS, connect_timeout=self._connect_timeout)

    @classmethod
    def from_url(cls, url: str) -> SyncConnector:
        """Raise `ConfigurationError`: its URL is the asynchronous connector's."""
        raise ConfigurationError(
            "plain calls are served by the asynchronous connector: give the app that one's URL"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._sibling!r}>"

    def open(self, pool: Any = None) -> None:
        """Start the loop and connect. Raises `ConnectionFailed`, and `InvalidOption` for a pool."""
        if pool is not None:
            raise InvalidOption(
                f"a pool for {type(self._sibling).__name__} belongs to an event loop: give it to"
                " open_async(). Plain calls make connections of their own"
            )
        with self._lock:
            if self._served is None:
                self._served = self._serve()
            self._is_open = True

    def _serve(self) -> _Served:
        loop = LoopThread("procrastinate-plain")
        try:
            loop.call(_connect(self._sibling))
        except BaseException:
            loop.end(self._sibling.close_async())
            raise
        return _Served(loop, self._sibling, self)

    def close(self) -> None:
        """Close the connections at once, and end the loop. Twice is harmless."""
        with self._lock:
            served, self._served = self._served, None
            self._is_open = False
        if served is not None:
            served.end()

    def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AbstractContextManager[SessionExecutor]:
        """Return a block holding one connection; the loop runs what is executed in it.

        Raises `AppNotOpen` before `open`; entering it raises `ConnectionFailed` or `PoolTimeout`.
        """
        begin(transaction=transaction, read_only=read_only)
        if not self._is_open:
            raise AppNotOpen("the connector is not open: call app.open() first")
        return _Session(self, transaction=transaction, read_only=read_only, timeout=timeout)

    def call(self, work: Callable[[AsyncConnector], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop, with the connector there; return or raise what it does.

        Raises `AppNotOpen` before `open`.
        """
        if not self._is_open:
            raise AppNotOpen("the connector is not open: call app.open() first")
        served = self._serving()
        return served.loop.call(work(served.connector))

    def _serving(self) -> _Served:
        served = self._served
        if served is not None:
            return served
        with self._lock:
            if not self._is_open:
                raise AppNotOpen("the connector was closed: call app.open() first")
            if self._served is None:
                self._served = self._serve()
            return self._served

    def after_fork(self) -> None:
        """Leave all that was made to the parent (rule 2)."""
        self._lock = threading.Lock()
        if self._served is not None:
            self._served.leave()
            self._served = None
        else:
            forks.leave_to_parent(self._sibling)
        self._sibling = self._sibling_of(self._sibling)


async def _connect(connector: AsyncConnector) -> None:
    await connector.open_async()
    async with connector.session_async():
        pass


class _Served:
    """A loop with an open connector on it, for as long as either is used."""

    def __init__(self, loop: LoopThread, connector: AsyncConnector, user: object) -> None:
        self.loop = loop
        self.connector = connector
        # For a connector that was not closed, and to which no reference is left.
        self._finalizer = weakref.finalize(user, _abandon, loop, connector)
        self._finalizer.atexit = False

    def end(self) -> None:
        self._finalizer.detach()
        self.loop.end(self.connector.close_async())

    def leave(self) -> None:
        """Leave it to the process that ours was forked from."""
        self._finalizer.detach()
        self.loop.inherited = True
        forks.leave_to_parent(self, self.loop, self.connector)


def _abandon(loop: LoopThread, connector: AsyncConnector) -> None:
    """Let a loop end, from whatever thread the garbage is collected in."""
    loop.let_end(connector.close_async())


class _Session:
    """One session of the asynchronous connector, for a thread."""

    __slots__ = ("_block", "_connector", "_executor", "_loop", "_options")

    def __init__(self, connector: LoopThreadConnector, **options: Any) -> None:
        self._connector = connector
        self._options = options
        self._loop: LoopThread | None = None
        self._block: AbstractAsyncContextManager[AsyncSessionExecutor] | None = None
        self._executor: AsyncSessionExecutor | None = None

    def __enter__(self) -> _Session:
        served = self._connector._serving()
        self._loop = served.loop
        entering = served.loop.prepare(self._enter(served.connector))
        try:
            self._executor = entering.result()
        except BaseException as exc:
            if self._block is not None and entering.has_succeeded:
                served.loop.call(self._block.__aexit__(type(exc), exc, None))
            raise
        return self

    async def _enter(self, connector: AsyncConnector) -> AsyncSessionExecutor:
        self._block = connector.session_async(**self._options)
        return await self._block.__aenter__()

    def execute(self, query: Query, /) -> Rows:
        """Execute one query. Raises `ConnectorException`."""
        assert self._loop is not None
        assert self._executor is not None
        return self._loop.call(self._execute(self._executor, query))

    async def _execute(self, executor: AsyncSessionExecutor, query: Query) -> Rows:
        return await executor.execute(query)

    def sever(self) -> None:
        """Shut the connection down while a statement waits on it; from any thread."""
        if self._loop is not None and self._executor is not None:
            self._loop.soon(self._executor.sever)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop is None or self._block is None or self._loop.inherited:
            return
        self._loop.call(self._exit(self._block, kind, exc, traceback))

    async def _exit(
        self,
        block: AbstractAsyncContextManager[AsyncSessionExecutor],
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await block.__aexit__(kind, exc, traceback)
