"""Connectors with one fault each, and the behaviours by which the kit has to find it.

Those that need no pool are made from `TinyConnector`, the others from the real connectors. The
referee is always a healthy one. `FAULTS` says of each which tests fail: exactly these, of all the
suite but for the queue's behaviours, which a broken connector may or may not spoil as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from typing import Any

import psycopg2
import psycopg2.extensions as ext
import psycopg2.extras
import psycopg2.pool
from tiny_connector import TinyConnector, TinyExecutor, translated

from procrastinate import errors
from procrastinate.connector import Connector, Executor, Notification, Query, Rows
from procrastinate_aiopg import AiopgConnector
from procrastinate_connector_testkit import (
    Adapter,
    Binds,
    LimitsPool,
    OwnedConnection,
    OwnedPool,
    TakesPools,
)
from procrastinate_psycopg2 import Psycopg2Connector

# --- Statements and rows ------------------------------------------------------------------------


class WithExecutor(TinyConnector):
    """The base of those whose executor is at fault."""

    broken_executor: type[TinyExecutor]

    def executor(self, connection: Any) -> Executor:
        return self.broken_executor(connection)


class DictRows(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            rows = super().run(cursor, query)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in rows]  # type: ignore[misc]


class NaiveMoments(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            return [
                tuple(v.replace(tzinfo=None) if hasattr(v, "tzinfo") else v for v in row)
                for row in super().run(cursor, query)
            ]


class DecimalNumbers(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            def exact(value: Any) -> Any:
                return Decimal(str(value)) if isinstance(value, float) else value

            return [tuple(map(exact, row)) for row in super().run(cursor, query)]


class PercentAlways(WithExecutor):
    """Gives the driver parameters even where there are none."""

    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            return super().run(cursor, Query(query.name, query.sql, query.params or {"unused": 1}))


class CutsAtNul(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            def cut(value: Any) -> Any:
                if isinstance(value, list):
                    return [cut(each) for each in value]
                return value.partition("\0")[0] if isinstance(value, str) else value

            params = {key: cut(value) for key, value in query.params.items()}
            return super().run(cursor, Query(query.name, query.sql, params))


class ExecutesTwice(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            if query.sql.startswith(("select", "insert")):
                super().run(cursor, query)
            return super().run(cursor, query)


# --- Errors -------------------------------------------------------------------------------------


class SwallowsErrors(WithExecutor):
    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            try:
                return super().execute(query)
            except errors.ConnectorException:
                return []


class LosesConstraint(WithExecutor):
    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            try:
                return super().execute(query)
            except errors.ConnectorException as exc:
                exc.constraint = None
                raise


class DriverErrors(WithExecutor):
    """Lets the driver's exceptions out."""

    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            with ext.cursor(self.connection) as cursor:
                return self.run(cursor, query)

    @contextmanager
    def session(self, *, transaction: bool = False) -> Iterator[Executor]:
        connection = self.take() if self.is_open else super().session().__enter__()
        try:
            connection.autocommit = not transaction
            yield self.executor(connection)
            connection.commit()
        finally:
            connection.close()


class NoCause(WithExecutor):
    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            try:
                return super().execute(query)
            except errors.ConnectorException as exc:
                kept = {"sqlstate": exc.sqlstate, "constraint": exc.constraint}
                error = type(exc)(str(exc), **kept)
            raise error


class ShowsPassword(TinyConnector):
    def take(self) -> Any:
        try:
            return psycopg2.connect(self.dsn)
        except psycopg2.Error as exc:
            raise errors.ConnectionFailed(f"cannot connect to {self.dsn}") from exc


class NeverConnectionFailed(TinyConnector):
    def take(self) -> Any:
        with translated():
            return psycopg2.connect(self.dsn)


# --- Sessions -----------------------------------------------------------------------------------


class ForgetsCommit(TinyConnector):
    @contextmanager
    def session(self, *, transaction: bool = False) -> Iterator[Executor]:
        try:
            with super().session(transaction=transaction) as executor:
                yield executor
                if transaction:
                    raise InterruptedError
        except InterruptedError:
            pass


class CommitsAlways(TinyConnector):
    """Also when the block raises."""

    def give_back(self, connection: Any) -> None:
        with contextlib.suppress(psycopg2.Error):
            connection.commit()
        connection.close()


class IgnoresTransaction(TinyConnector):
    @contextmanager
    def session(self, *, transaction: bool = False) -> Iterator[Executor]:
        with super().session(transaction=False) as executor:
            yield executor


class AlwaysTransaction(TinyConnector):
    @contextmanager
    def session(self, *, transaction: bool = False) -> Iterator[Executor]:
        with super().session(transaction=True) as executor:
            yield executor


class Reconnects(WithExecutor):
    """Makes a new connection in the middle of a session and repeats the statement there."""

    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            try:
                return super().execute(query)
            except errors.ConnectionLost:
                self.connection = psycopg2.connect(self.connection.dsn)
                self.connection.autocommit = True
                return super().execute(query)


class KeepsConnections(TinyConnector):
    """A pool of its own making, which has all that can be wrong with one, or less."""

    checks = True  # whether a connection is alive
    resets = True  # what a session has set
    ends_transactions = True

    def __init__(self, dsn: str = "", **options: Any) -> None:
        super().__init__(dsn, **options)
        self.idle: list[Any] = []
        self.pid = os.getpid()

    def close(self) -> None:
        super().close()
        while self.idle:
            self.idle.pop().close()

    def take(self) -> Any:
        if self.idle and self.pid != os.getpid():
            self.idle, self.pid = [], os.getpid()
        while self.idle:
            connection = self.idle.pop()
            if not self.checks or self.is_alive(connection):
                return connection
        return super().take()

    def is_alive(self, connection: Any) -> bool:
        try:
            with connection.cursor() as cursor:
                cursor.execute("select 1")
            connection.rollback()
        except psycopg2.Error:
            return False
        return True

    def give_back(self, connection: Any) -> None:
        if not self.is_open:
            connection.close()
        if connection.closed:
            return
        try:
            if self.ends_transactions:
                connection.rollback()
            if self.resets:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("discard all")
        except psycopg2.Error:
            return
        self.idle.append(connection)


class GivesOutDeadConnections(KeepsConnections):
    checks = False


class LeaksSettings(KeepsConnections):
    resets = False


class LeaksTransactions(KeepsConnections):
    checks = False
    resets = False
    ends_transactions = False

    @contextmanager
    def session(self, *, transaction: bool = False) -> Iterator[Executor]:
        if not self.is_open:
            raise errors.AppNotOpen("not open")
        connection = self.take()
        if connection.info.transaction_status == ext.TRANSACTION_STATUS_IDLE:
            connection.autocommit = not transaction
        try:
            with translated():
                yield self.executor(connection)
                connection.commit()
        finally:
            self.give_back(connection)


class SharesOneConnection(TinyConnector):
    """Gives every session the same connection."""

    connection: Any = None

    def take(self) -> Any:
        if self.connection is None or self.connection.closed:
            self.connection = super().take()
        elif self.connection.info.transaction_status:
            self.connection.commit()
        return self.connection

    def give_back(self, connection: Any) -> None:
        with contextlib.suppress(psycopg2.Error):
            connection.rollback()


class IgnoresForks(KeepsConnections):
    def take(self) -> Any:
        self.pid = os.getpid()
        return super().take()


class OpensByItself(TinyConnector):
    """Works before it was opened, and after it was closed."""

    @contextmanager
    def session(self, *, transaction: bool = False) -> Iterator[Executor]:
        self.is_open = True
        with super().session(transaction=transaction) as executor:
            yield executor


class ForgetsOptions(TinyConnector):
    def __init__(self, dsn: str = "", **options: Any) -> None:
        super().__init__(dsn)


class OtherContract(TinyConnector):
    contract = 2


# --- bind ---------------------------------------------------------------------------------------


class BindCommits(TinyConnector):
    class Executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            rows = super().execute(query)
            self.connection.commit()
            return rows

    def bind(self, connection: Any) -> Executor:
        super().bind(connection)
        return self.Executor(connection)


class BindUsesRowFactory(TinyConnector):
    class Executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            with translated(), self.connection.cursor() as cursor:
                return self.run(cursor, query)

        def run(self, cursor: Any, query: Query) -> Rows:
            cursor.execute(query.sql, dict(query.params) or None)
            return cursor.fetchall() if cursor.description else []

    def bind(self, connection: Any) -> Executor:
        super().bind(connection)
        return self.Executor(connection)


class BindChangesRowFactory(TinyConnector):
    def bind(self, connection: Any) -> Executor:
        executor = super().bind(connection)
        connection.cursor_factory = ext.cursor
        return executor


class BindCloses(TinyConnector):
    bound: Any = None

    def bind(self, connection: Any) -> Executor:
        executor = super().bind(connection)
        self.bound = connection
        return executor

    def close(self) -> None:
        super().close()
        if self.bound is not None:
            self.bound.close()


class BindTakesAnything(TinyConnector):
    def bind(self, connection: Any) -> Executor:
        return self.executor(connection)


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


class DoesNotWait(Psycopg2Connector):
    """Fails at once when the pool is exhausted."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"pool_timeout": 0}))


class LosesConnections(Psycopg2Connector):
    """Forgets to give a connection back when the block raises."""

    @contextmanager
    def session(self, *, transaction: bool = False) -> Iterator[Executor]:
        block = super().session(transaction=transaction)
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
        held = await self._opened().acquire()
        async with held.connection.cursor() as cursor:
            await cursor.execute("listen kit_forgotten")
        self._opened().release(held)


class CancelsStatements(AiopgConnector):
    """Lets a cancellation go through to the driver, which drops the connection at once."""

    @asynccontextmanager
    async def session_async(self, *, transaction: bool = False) -> AsyncIterator[Any]:
        async with super().session_async(transaction=transaction) as inner:
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

    def sync_connector(self) -> Psycopg2Connector:
        if self.counterpart is None:
            self.counterpart = super().sync_connector()
        return self.counterpart


class CounterpartWithoutOptions(AiopgConnector):
    def sync_connector(self) -> Psycopg2Connector:
        counterpart = super().sync_connector()
        fresh = Psycopg2Connector()
        counterpart.json_dumps, counterpart.json_loads = fresh.json_dumps, fresh.json_loads
        return counterpart


# --- Adapters -----------------------------------------------------------------------------------


def run(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def owned_connection(dsn: str) -> Iterator[OwnedConnection]:
    connection = psycopg2.connect(dsn, cursor_factory=psycopg2.extras.RealDictCursor)
    yield OwnedConnection(
        connection,
        query=lambda sql: run(connection, sql),
        commit=connection.commit,
        rollback=connection.rollback,
        state=lambda: connection.cursor_factory,
    )
    connection.close()


@contextmanager
def owned_pool(dsn: str) -> Iterator[OwnedPool]:
    pool = psycopg2.pool.ThreadedConnectionPool(1, 6, dsn)

    def query(sql: str) -> Any:
        connection = pool.getconn()
        try:
            with connection:
                return run(connection, sql)
        finally:
            pool.putconn(connection)

    yield OwnedPool(pool, query)
    if not pool.closed:
        pool.closeall()


class BrokenTiny(Adapter, Binds):
    def __init__(self, kind: type[Connector]) -> None:
        self.connector_class = kind  # type: ignore[misc]

    def connector(self, dsn: str, **options: Any) -> Any:
        return self.connector_class(dsn, **options)  # type: ignore[call-arg]

    def referee(self, dsn: str) -> Connector:
        return TinyConnector(dsn)

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {"dict_rows": owned_connection}


class BrokenPool(Adapter, LimitsPool, TakesPools):
    def __init__(self, kind: type[Connector]) -> None:
        self.connector_class = kind  # type: ignore[misc]

    def connector(self, dsn: str, **options: Any) -> Any:
        return self.connector_class(dsn=dsn, **options)  # type: ignore[call-arg]

    def limited(self, dsn: str) -> Any:
        return self.connector_class(dsn=dsn, maxconn=1, pool_timeout=1.0)  # type: ignore[call-arg]

    def referee(self, dsn: str) -> Connector:
        return Psycopg2Connector(dsn=dsn)

    def pools(self) -> Mapping[str, Callable[[str], Any]]:
        return {"pool": owned_pool}


class BrokenAsync(Adapter):
    def __init__(self, kind: type[Connector]) -> None:
        self.connector_class = kind  # type: ignore[misc]

    def connector(self, dsn: str, **options: Any) -> Any:
        return self.connector_class(dsn=dsn, **options)  # type: ignore[call-arg]

    def referee(self, dsn: str) -> Connector:
        return AiopgConnector(dsn=dsn)


_BASES: Mapping[type[Connector], type[Adapter]] = {
    TinyConnector: BrokenTiny,
    Psycopg2Connector: BrokenPool,
    AiopgConnector: BrokenAsync,
}


def adapter_of(name: str) -> Adapter:
    """Return the adapter for a broken connector."""
    kind = globals()[name]
    for base, adapter in _BASES.items():
        if issubclass(kind, base):
            return adapter(kind)  # type: ignore[call-arg]
    raise LookupError(name)
