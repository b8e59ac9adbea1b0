"""Connectors with one fault each, made from the real ones; `faults` says how they are found."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from procrastinate import errors
from procrastinate.connector import AsyncConnector, Notification, Query, Rows, SessionExecutor
from procrastinate_aiopg import AiopgConnector
from procrastinate_psycopg2 import Psycopg2Connector
from procrastinate_psycopg2.pools import BorrowedPool

# --- Pools --------------------------------------------------------------------------------------


class ClosesForeignPool(Psycopg2Connector):
    lent: Any = None

    def open(self, pool: Any = None) -> None:
        super().open(pool)
        self.lent = pool

    def close(self) -> None:
        super().close()
        if self.lent is not None:
            self.lent.closeall()
            self.lent = None


class IgnoresForeignPool(Psycopg2Connector):
    def open(self, pool: Any = None) -> None:
        super().open()


class TakesAnyEncoding(Psycopg2Connector):
    def _borrowed(self, pool: Any) -> BorrowedPool:
        return BorrowedPool(pool, timeout=1.0)


class DoesNotWait(Psycopg2Connector):
    """Fails at once when the pool is exhausted."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"pool_timeout": 0}))


class IgnoresTimeout(Psycopg2Connector):
    """Waits for as long as the pool does, whatever a session asks for."""

    def session(self, *, timeout: float | None = None, **options: Any) -> Any:
        return super().session(**options)


class LosesConnections(Psycopg2Connector):
    """Forgets to give a connection back when the block raises."""

    @contextmanager
    def session(self, *, transaction: bool = False, **options: Any) -> Iterator[SessionExecutor]:
        block = super().session(transaction=transaction, **options)
        executor = block.__enter__()
        try:
            yield executor
        except ZeroDivisionError:
            LOST.append(block)
            raise
        except BaseException as exc:
            block.__exit__(type(exc), exc, None)
            raise
        block.__exit__(None, None, None)


LOST: list[Any] = []

# --- Asynchronous connectors --------------------------------------------------------------------


class NeverTellsOfLoss(AiopgConnector):
    @asynccontextmanager
    async def listen(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[Notification]]:
        async def deaf(notifications: AsyncIterator[Notification]) -> AsyncIterator[Notification]:
            try:
                async for notification in notifications:
                    yield notification
            except errors.ConnectionLost:
                await asyncio.sleep(3600)

        async with super().listen(channels) as notifications:
            yield deaf(notifications)


class ListensLate(AiopgConnector):
    """Begins to LISTEN when the first notification is asked for."""

    @asynccontextmanager
    async def listen(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[Notification]]:
        stack = contextlib.AsyncExitStack()

        async def late() -> AsyncIterator[Notification]:
            block = super(ListensLate, self).listen(channels)
            async for notification in await stack.enter_async_context(block):
                yield notification

        async with stack:
            yield late()


class UnquotedChannels(AiopgConnector):
    def listen(self, channels: Sequence[str]) -> Any:
        return super().listen([channel.lower() for channel in channels])


class LeavesListening(AiopgConnector):
    """Leaves LISTEN on a connection that goes on to serve sessions."""

    @asynccontextmanager
    async def listen(self, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[Notification]]:
        async with super().listen(channels) as notifications:
            yield notifications
        held = await self._opened.here().acquire()
        async with held.connection.cursor() as cursor:
            await cursor.execute("listen kit_forgotten")
        self._opened.here().release(held)


class TakesAnyLoop(AiopgConnector):
    """Does not notice that it is used in another event loop, while the first one runs.

    (With connections of a loop that has ended, aiopg sometimes works and sometimes waits.)
    """

    async def open_async(self, pool: Any = None) -> None:
        self._forget_a_loop_that_runs()
        await super().open_async(pool)
        self._opened._loop = asyncio.get_running_loop()

    async def close_async(self) -> None:
        self._forget_a_loop_that_runs()
        await super().close_async()

    def _forget_a_loop_that_runs(self) -> None:
        loop = self._opened._loop
        if loop is not None and loop.is_running():
            self._opened._loop = None

    def session_async(self, **options: Any) -> Any:
        if self._opened._loop is not None:
            self._opened._loop = asyncio.get_running_loop()
        return super().session_async(**options)


class StaysWhereItWasRefused(AiopgConnector):
    """Belongs to the event loop in which it could not be opened."""

    async def open_async(self, pool: Any = None) -> None:
        try:
            await super().open_async(pool)
        except errors.InvalidOption:
            self._opened._loop, self._opened._process = asyncio.get_running_loop(), os.getpid()
            raise


class OpensWithAnything(AiopgConnector):
    async def open_async(self, pool: Any = None) -> None:
        await super().open_async(None if type(pool) is object else pool)


class CancelsStatements(AiopgConnector):
    """Lets a cancellation go through to the driver, which drops the connection at once."""

    @asynccontextmanager
    async def session_async(self, **options: Any) -> AsyncIterator[Any]:
        async with super().session_async(**options) as inner:
            yield AbandonsStatements(inner)


class AbandonsStatements:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def execute(self, query: Query) -> Rows:
        task = asyncio.ensure_future(self.inner.execute(query))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                ABANDONED.append(task)
            raise


ABANDONED: list[Any] = []


class OneCounterpart(AiopgConnector):
    counterpart: Any = None

    def sync_connector(self, *, connect_timeout: float | None = None) -> Psycopg2Connector:
        if self.counterpart is None:
            self.counterpart = super().sync_connector()
        return self.counterpart


class CounterpartWithoutOptions(AiopgConnector):
    def sync_connector(self, *, connect_timeout: float | None = None) -> Psycopg2Connector:
        counterpart = super().sync_connector()
        fresh = Psycopg2Connector()
        counterpart.json_dumps, counterpart.json_loads = fresh.json_dumps, fresh.json_loads
        return counterpart


# --- Plain calls without a synchronous half -----------------------------------------------------


class WithoutSyncHalf(AiopgConnector):
    """Nothing is wrong with it: core serves its plain calls on a loop in a thread."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.options = options

    def sibling(
        self, *, max_connections: int, connect_timeout: float | None = None
    ) -> WithoutSyncHalf:
        sizes = {"minsize": 0, "maxsize": max_connections}
        return type(self)(**(self.options | sizes))

    sync_connector: Any = AsyncConnector.sync_connector


class IsItsOwnSibling(WithoutSyncHalf):
    def sibling(
        self, *, max_connections: int, connect_timeout: float | None = None
    ) -> WithoutSyncHalf:
        return self


class SiblingElsewhere(WithoutSyncHalf):
    """Its sibling leads to another database."""

    def sibling(
        self, *, max_connections: int, connect_timeout: float | None = None
    ) -> WithoutSyncHalf:
        return WithoutSyncHalf(
            **(self.options | {"maxsize": max_connections, "dbname": "postgres"})
        )


class SiblingCannotBeSevered(WithoutSyncHalf):
    @asynccontextmanager
    async def session_async(self, **options: Any) -> AsyncIterator[Any]:
        async with super().session_async(**options) as inner:
            yield Unseverable(inner)


class Unseverable:
    def __init__(self, inner: Any) -> None:
        self.execute = inner.execute

    def sever(self) -> None:
        pass
