"""A connection of an engine in the hands of one session, over either driver.

Rules

1. Connections come from the engine's pool with all of its events. While anybody would see it (echo,
   a listener), a query goes through SQLAlchemy. Otherwise it goes to the driver directly: through
   SQLAlchemy an insert took half as long again.
2. BEGIN, COMMIT and the settings of a query always go to the driver directly. SQLAlchemy's adapters
   begin a transaction with their own first statement only; so for the length of a session the
   connection is in autocommit mode, which is an attribute on the client's side, and goes back as it
   was.
3. A call to the driver ends before a cancellation is delivered. After 5 s the connection is shut
   down.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Coroutine, Iterable, Sequence
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncConnection

from procrastinate.connector import Notification, Query, Row, Rows
from procrastinate.connector_tools import failures, plans
from procrastinate.connector_tools.calls import to_its_end
from procrastinate.connector_tools.plans import Plans
from procrastinate.errors import ConnectionLost, ConnectorException

T = TypeVar("T")


class Driver(abc.ABC):
    """What is different between the drivers under SQLAlchemy. Of one raw connection."""

    #: SQLAlchemy's name of it.
    name: ClassVar[str]
    #: Whether queries are prepared by SQL, in one text with their values, on connections of ours.
    prepares_by_sql: ClassVar[bool] = False
    #: The exceptions that `translate` knows.
    errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, raw: Any, *, own: bool, direct: bool) -> None:
        self.raw = raw
        #: Whether the connection is ours, and nothing stands between it and its server process.
        self.ours_alone = own and direct

    @abc.abstractmethod
    async def begin_session(self, adapter: Any) -> None:
        """Put the connection in autocommit mode. Sends nothing."""

    @abc.abstractmethod
    async def forget_prepared(self) -> None:
        """Prepare statements anew from now on, because the server has forgotten them."""

    @abc.abstractmethod
    async def end_session(self, adapter: Any) -> None:
        """Put back what `begin_session` has changed. Sends nothing."""

    @abc.abstractmethod
    async def run(self, query: Query, begin: str, send: Send | None) -> Rows:
        """Execute a query behind ``begin`` and its settings; by ``send`` if that is given."""

    async def run_bound(self, query: Query, send: Send) -> Rows:
        """Execute a query by ``send`` in the transaction of the connection's owner."""
        sql, values = self.positional(query)
        return plain(await self.to_end(send(sql, values)))

    @abc.abstractmethod
    async def command(self, sql: str) -> str | None:
        """Execute statements without values and rows, and return the last one's command tag."""

    @abc.abstractmethod
    def translate(self, exc: Exception, query: Query) -> ConnectorException | None:
        """Return the error for what a query raised; None for a mistake in our code."""

    @property
    @abc.abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open, also a failed one. False for a closed connection."""

    @property
    @abc.abstractmethod
    def is_open(self) -> bool:
        """Whether the connection is open, as far as the driver knows."""

    @property
    @abc.abstractmethod
    def is_quiet(self) -> bool:
        """Whether no statement is under way."""

    @abc.abstractmethod
    async def listen(self, channels: Sequence[str], heard: Heard) -> None:
        """LISTEN, and call ``heard`` with each notification and, at the end, with what ended it."""

    @abc.abstractmethod
    def stop_listening(self) -> None:
        """Call ``heard`` no more. The connection is closed afterwards."""

    @abc.abstractmethod
    def looks_alive(self) -> bool:
        """Whether an idle connection can be used, without a round trip."""

    @abc.abstractmethod
    def sever(self) -> None:
        """Shut the connection down at once. Never raises."""

    @property
    @abc.abstractmethod
    def fileno(self) -> int:
        """The number of the socket, -1 if it is closed."""

    @property
    @abc.abstractmethod
    def server_pid(self) -> int:
        """The process id that the server, or a pooler, has said when it was connected to."""

    @property
    @abc.abstractmethod
    def encoding(self) -> str | None:
        """The client_encoding that the server reports, None if it does not."""

    async def _through_sqlalchemy(self, query: Query, front: str, send: Send) -> Rows:
        """Execute a query by ``send``, and what comes in front of it before that.

        ``front`` is the query's settings, with BEGIN if that is due. Outside of a transaction, they
        get one of their own.
        """
        alone = front and not (front.startswith("BEGIN") or self.in_transaction)
        if front:
            await self.command(f"BEGIN;{front}" if alone else front)
        sql, values = self.positional(query)
        try:
            rows = plain(await self.to_end(send(sql, values)))
        except BaseException:
            if alone and self.in_transaction:
                await self.command("ROLLBACK")
            raise
        if alone:
            await self.command("COMMIT")
        return rows

    async def to_end(self, call: Coroutine[Any, Any, T]) -> T:
        return await to_its_end(call, self.sever)

    @staticmethod
    @abc.abstractmethod
    def positional(query: Query) -> tuple[str, Any]:
        """Return the SQL and the values as SQLAlchemy's ``exec_driver_sql`` takes them."""


#: Takes a notification, what has ended the connection, or None for an end without a word.
Heard = Callable[[Notification | Exception | None], object]
#: Executes SQL with values through SQLAlchemy, and returns the rows as the cursor gives them.
Send = Callable[[str, Any], Coroutine[Any, Any, list[Row]]]


def plain(rows: Iterable[Any]) -> list[Row]:
    """Return rows as tuples of plain values: numeric as float."""
    return [_plain_row(tuple(row)) for row in rows]


def _plain_row(row: Row) -> Row:
    if Decimal in map(type, row):
        return tuple(float(value) if type(value) is Decimal else value for value in row)
    return row


class Lease:
    """A connection for one session; see `procrastinate.connector_tools.sessions`."""

    def __init__(
        self, connection: AsyncConnection, adapter: Any, driver: Driver, plans: Plans | None = None
    ) -> None:
        self.connection = connection
        self.driver = driver
        self.broken = False
        self._adapter = adapter
        self._watched = is_watched(connection)
        #: What the server keeps for the connection; None: nothing, because it is not ours alone, or
        #: because an event of the engine looks at what is sent.
        self._plans = None if self._watched else plans
        self._ready = False

    async def take(self) -> None:
        """Make the connection ready for a session."""
        await self.driver.begin_session(self._adapter)
        self._ready = True

    async def run(self, query: Query, begin: str) -> Rows:
        """Execute a query; ``begin`` and the query's settings go in front of it."""
        if self._plans is not None:
            return await plans.run_async(self, self._plans, query, begin)
        try:
            return await self._run(query, begin)
        except ConnectorException as exc:
            # The engine's owner took back what was prepared (DISCARD ALL): the driver would go on
            # to send the names of such statements, and each would fail for ever.
            if not plans.is_missing(exc):
                raise
            self.broken = True
            if begin or self.in_transaction:
                raise
        await self.driver.forget_prepared()
        return await self._run(query, "")

    async def send(self, query: Query, front: str, sql: str) -> Rows:
        """Send ``front`` and, in place of the query's text, ``sql`` with the query's values."""
        try:
            return await self._run(Query(query.name, sql, query.params), front)
        except ConnectorException as exc:
            if self._plans is not None and self._plans.refused(exc):
                self.broken = True
            raise

    @property
    def server_pid(self) -> int:
        """The process id that the server, or a pooler, has told."""
        return self.driver.server_pid

    async def _run(self, query: Query, begin: str) -> Rows:
        if self.connection.invalidated:  # SQLAlchemy would connect again, in mid-session
            raise ConnectionLost(f"{query.name}: the connection broke during an earlier statement")
        send = self._through_sqlalchemy if self._watched else None
        try:
            return await self.driver.run(query, begin, send)
        except Exception as exc:
            error = self._judged(exc, query)
            if error is exc:
                raise
            raise error from driver_error(exc, self.driver)

    async def end(self, command: str) -> str | None:
        """Execute COMMIT or ROLLBACK and return the server's command tag for it."""
        try:
            return await self.driver.command(command)
        except Exception as exc:
            raise self._judged(exc, Query(command.lower(), command)) from exc

    def _judged(self, exc: Exception, query: Query) -> Exception:
        error = error_of(exc, query, self.driver, watched=self._watched)
        if error is None:
            return exc
        if isinstance(error, ConnectionLost):
            self.broken = True
        return error

    async def _through_sqlalchemy(self, sql: str, values: Any) -> list[Row]:
        return await executed(self.connection, sql, values)

    @property
    def in_transaction(self) -> bool:
        return self.driver.in_transaction

    @property
    def reusable(self) -> bool:
        driver = self.driver
        return not self.broken and driver.is_open and driver.is_quiet and not driver.in_transaction

    def sever(self) -> None:
        self.broken = True
        self.driver.sever()

    async def give_back(self, *, discard: bool) -> None:
        """Give the connection back to the engine's pool, or close it."""
        connection = self.connection
        refusals: tuple[type[Exception], ...] = (sa_exc.SQLAlchemyError, *self.driver.errors)
        try:
            if discard or self.broken:
                self.driver.sever()
                if not connection.invalidated:
                    await connection.invalidate()
            elif self._ready:
                await self.driver.end_session(self._adapter)
        except refusals:
            await connection.invalidate()
        finally:
            await connection.close()


def is_watched(connection: AsyncConnection) -> bool:
    """Return whether the log or a listener of the engine's would see a statement.

    SQLAlchemy has no public question for that; without its answer the statement is visible.
    """
    inner = connection.sync_connection
    return bool(
        getattr(inner, "_echo", True)
        or getattr(inner, "_has_events", True)
        or getattr(getattr(inner, "engine", None), "_has_events", True)
        or getattr(getattr(inner, "dialect", None), "_has_events", True)
    )


#: Against what the owner's options may say: no server-side cursors, and no rows held back by
#: SQLAlchemy's own buffer. ``yield_per`` would bring both back.
_OPTIONS = {"stream_results": False, "yield_per": None}


async def executed(connection: AsyncConnection, sql: str, values: Any) -> list[Row]:
    """Execute SQL through SQLAlchemy; the rows are the cursor's own and not SQLAlchemy's."""

    def execute(inner: Any) -> list[Row]:
        options = _OPTIONS if values is not None else {**_OPTIONS, "no_parameters": True}
        result = inner.exec_driver_sql(sql, values, options)
        return list(result.cursor.fetchall()) if result.returns_rows else []

    return await connection.run_sync(execute)


def driver_error(exc: BaseException, driver: Driver | type[Driver]) -> BaseException:
    """Return the driver's error inside SQLAlchemy's, else the error itself."""
    found: BaseException | None = exc
    while found is not None and not isinstance(found, driver.errors):
        found = getattr(found, "orig", None) or found.__cause__
    return found or exc


def error_of(
    exc: Exception, query: Query, driver: Driver, *, watched: bool = False
) -> ConnectorException | None:
    """Return the error for what a query raised.

    None for a mistake in our code, and for what a listener of the engine's has raised. ``watched``
    says whether there may be one.
    """
    if isinstance(exc, ConnectorException):
        return exc
    if watched and _is_of_a_listener(exc, query, driver):
        return None
    if isinstance(exc, sa_exc.StatementError):  # a cause of ours: it repeats no values
        exc.hide_parameters = True
        exc.args = (first_line(exc),)
    cause = driver_error(exc, driver)
    assert isinstance(cause, Exception)
    error = driver.translate(cause, query)
    if error is None and isinstance(exc, sa_exc.SQLAlchemyError):
        return ConnectorException(f"{query.name}: {first_line(exc)}")
    return error


def _is_of_a_listener(exc: Exception, query: Query, driver: Driver) -> bool:
    if isinstance(exc, OSError) and not isinstance(exc, TimeoutError):
        return driver.is_open  # asyncpg raises it too, for a connection that has ended
    return failures.is_of_a_listener(exc, query)


def first_line(exc: BaseException) -> str:
    """Return SQLAlchemy's message without the statement and its parameters."""
    return str(exc).partition("\n")[0]
