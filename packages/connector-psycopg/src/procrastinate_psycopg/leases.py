"""One connection in the hands of a session: running statements on it, and judging its health.

Rules

1. A message holds BEGIN, if that is due, the query's settings and the statement with its values. So
   a query is one round trip (`literals`). A call that was prepared, and needs no settings any more,
   goes by the protocol's message for that, which the server need not parse.
2. Nothing that the connection's owner set up (row factory, adapters, autocommit,
   prepare_threshold) is used or changed: messages go through psycopg's `PGconn` (`answers`).
3. Dates and times are read in ISO format. On a connection that is lent to us and has another
   DateStyle, that is one more setting of each query that has values or settings.
4. While a session waits in a thread, signals are heard: Ctrl-C ends the wait, and the connection,
   on which a statement is still under way, is closed.
5. An answer is read as far as it has arrived before the event loop turns, because libpq takes
   16 KiB at a time and a turn of a busy worker's loop may take milliseconds.
"""

from __future__ import annotations

import asyncio
import selectors
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq.abc import PGconn, PGresult

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools import forks, plans, sockets
from procrastinate.connector_tools.calls import Uninterrupted
from procrastinate.connector_tools.plans import Plans
from procrastinate.errors import ConnectionLost, ConnectorException
from procrastinate_psycopg import driver
from procrastinate_psycopg.answers import Answer
from procrastinate_psycopg.literals import as_text, filled_in
from procrastinate_psycopg.rows import RowReader

_ISO = "SET LOCAL datestyle = 'ISO';"
#: Reads in one turn of the event loop at the most: about 1 MiB.
_READS = 64
_ERRORS = (psycopg.Error, *driver.VALUE_ERRORS)


class _Lease:
    """What both kinds of lease know."""

    def __init__(
        self, connection: psycopg.BaseConnection[Any], *, is_lent: bool, plans: Plans | None
    ) -> None:
        self.connection = connection
        self.pgconn: PGconn = connection.pgconn
        #: What the server keeps for it; None: nothing, because the connection is not ours alone.
        self._plans = plans
        #: Not to be given out again, whatever its state.
        self.broken = False
        self._reader = RowReader()
        self._needs_iso = is_lent and not driver.has_iso_dates(self.pgconn)
        if not is_lent:
            forks.detach_after_fork(connection, _fileno)

    @property
    def in_transaction(self) -> bool:
        return driver.in_transaction(self.pgconn)

    @property
    def reusable(self) -> bool:
        return not self.broken and driver.is_idle(self.pgconn)

    @property
    def server_pid(self) -> int:
        """The process id that the server, or a pooler, has told."""
        return self.pgconn.backend_pid

    def sever(self) -> None:
        """Shut the socket down, from any thread."""
        driver.sever(self.pgconn)

    def _message(self, query: Query, front: str, sql: str) -> bytes:
        if self._needs_iso and (query.params or query.settings):
            front += _ISO
        return (front + filled_in(sql, query.params)).encode()

    def _judged(self, exc: Exception, query: Query) -> ConnectorException:
        error = driver.translate(exc, query, self.pgconn)
        if isinstance(error, ConnectionLost):
            self.broken = True
        if self._plans is not None and self._plans.refused(error):
            self.broken = True
        return error


def _parameters(query: Query) -> list[bytes | None]:
    """Return the values of a prepared statement. Raises ValueError for one that cannot be sent."""
    texts = map(as_text, query.numbered()[1])
    return [None if text is None else text.encode() for text in texts]


def _fileno(connection: psycopg.BaseConnection[Any]) -> int:
    return connection.pgconn.socket


def _tag(result: PGresult) -> str | None:
    status = result.command_status
    return None if status is None else status.decode()


class SyncLease(_Lease):
    """A connection for one thread at a time."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        *,
        is_lent: bool = False,
        plans: Plans | None = None,
    ) -> None:
        super().__init__(connection, is_lent=is_lent, plans=plans)
        self._selector: selectors.BaseSelector | None = None

    def run(self, query: Query, begin: str = "") -> Rows:
        """Execute a query and return its rows. Raises `ConnectorException`."""
        if self._plans is None:
            return self.send(query, begin + query.set_local(), query.sql)
        name = None if begin else self._plans.name_of(query)
        if name is None:
            return plans.run(self, self._plans, query, begin)
        try:
            self.pgconn.send_query_prepared(name.encode(), _parameters(query))
            return self._reader.rows(self._answer())
        except _ERRORS as exc:
            error = self._judged(exc, query)
            if not plans.was_missing(error, self):
                raise error from exc
        return self.send(query, query.set_local(), query.sql)

    def send(self, query: Query, front: str, sql: str) -> Rows:
        """Send ``front`` and, in place of the query's text, ``sql`` with the query's values."""
        try:
            self.pgconn.send_query(self._message(query, front, sql))
            return self._reader.rows(self._answer())
        except _ERRORS as exc:
            raise self._judged(exc, query) from exc

    def end(self, command: str) -> str | None:
        """Execute COMMIT or ROLLBACK and return the server's word for what it did."""
        return _tag(self.command(command))

    def command(self, sql: str) -> PGresult:
        """Execute a statement of our own. Raises `ConnectorException`."""
        try:
            self.pgconn.send_query(sql.encode())
            return self._answer()
        except psycopg.Error as exc:
            raise self._judged(exc, Query(sql, sql)) from exc

    def _answer(self) -> PGresult:
        pgconn = self.pgconn
        answer = Answer(pgconn)
        while pgconn.flush():
            if self._wait(selectors.EVENT_READ | selectors.EVENT_WRITE) & selectors.EVENT_READ:
                pgconn.consume_input()
        self._wait(selectors.EVENT_READ)
        while not answer.read_and_collect():
            self._wait(selectors.EVENT_READ)
        return answer.checked()

    def _wait(self, events: int) -> int:
        """Wait until the socket is ready, and return for what."""
        selector = self._selector
        if selector is None:
            selector = self._selector = _PlainSelector()
            selector.register(self.pgconn.socket, events)
        (key,) = selector.get_map().values()
        if key.events != events:
            selector.modify(key.fd, events)
        while not (ready := selector.select()):
            pass
        return ready[0][1]

    def close(self) -> None:
        """Close the connection, at once."""
        self.pgconn.finish()


#: Needs no descriptor of its own.
_PlainSelector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


class AsyncLease(_Lease):
    """A connection on one event loop."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        *,
        is_lent: bool = False,
        plans: Plans | None = None,
    ) -> None:
        super().__init__(connection, is_lent=is_lent, plans=plans)
        self._loop = asyncio.get_running_loop()
        self._fileno = self.pgconn.socket
        self._watched = False
        self._answer: Answer | None = None
        self._answered: asyncio.Future[None] | None = None

    async def run(self, query: Query, begin: str = "") -> Rows:
        """Execute a query and return its rows. Raises `ConnectorException`."""
        if self._plans is None:
            return await self.send(query, begin + query.set_local(), query.sql)
        name = None if begin else self._plans.name_of(query)
        if name is None:
            return await plans.run_async(self, self._plans, query, begin)
        try:
            return self._reader.rows(await self._send(_parameters(query), name.encode()))
        except _ERRORS as exc:
            error = self._judged(exc, query)
            if not plans.was_missing(error, self):
                raise error from exc
        return await self.send(query, query.set_local(), query.sql)

    async def end(self, command: str) -> str | None:
        """Execute COMMIT or ROLLBACK and return the server's word for what it did."""
        return _tag(await self.command(command))

    async def command(self, sql: str) -> PGresult:
        """Execute a statement of our own. Raises `ConnectorException`."""
        try:
            return await self._send(sql.encode())
        except psycopg.Error as exc:
            raise self._judged(exc, Query(sql, sql)) from exc

    async def is_direct(self) -> bool:
        """Return whether nothing stands between this connection and one server process."""
        ((pid,),) = await self.send(plans.ASK, "", plans.ASK.sql)
        return bool(pid == self.server_pid)

    async def send(self, query: Query, front: str, sql: str) -> Rows:
        """Send ``front`` and, in place of the query's text, ``sql`` with the query's values."""
        try:
            return self._reader.rows(await self._send(self._message(query, front, sql)))
        except _ERRORS as exc:
            raise self._judged(exc, query) from exc

    async def _send(self, message: bytes | list[bytes | None], name: bytes = b"") -> PGresult:
        """Send a text, or the values of the prepared statement of this name."""
        if self._answer is not None:
            raise ConnectorException(
                "the connection is in use by another coroutine: a connection runs one statement"
                " at a time"
            )
        return await Uninterrupted(self._exchange(message, name), self.sever)

    async def _exchange(self, message: bytes | list[bytes | None], name: bytes) -> PGresult:
        pgconn = self.pgconn
        answer = self._answer = Answer(pgconn)
        answered = self._answered = self._loop.create_future()
        try:
            if isinstance(message, bytes):
                pgconn.send_query(message)
            else:
                pgconn.send_query_prepared(name, message)
            if pgconn.flush():
                self._loop.add_writer(self._fileno, self._write)
            self.watch()
            await answered
        finally:
            self._answer = self._answered = None
        return answer.checked()

    # On the loop

    def watch(self) -> None:
        """Have the loop say what comes. It stays so: to begin and end it costs 5 µs."""
        if not self._watched:
            self._loop.add_reader(self._fileno, self._read)
            self._watched = True

    def unwatch(self) -> None:
        """Leave the socket to others."""
        if self._watched:
            self._watched = False
            with suppress(RuntimeError):  # the loop has ended
                self._loop.remove_reader(self._fileno)

    def _read(self) -> None:
        answer, answered = self._answer, self._answered
        if answer is None or answered is None:
            self.unwatch()  # the server's farewell, probably: `looks_alive` finds out
            return
        try:
            for _ in range(_READS):
                if answer.read_and_collect():
                    self._settle(answered, None)
                    return
                if not sockets.readable(self._fileno):
                    return
        except psycopg.Error as exc:
            self._settle(answered, exc)

    def _write(self) -> None:
        error: psycopg.Error | None = None
        try:
            if self.pgconn.flush():
                return
        except psycopg.Error as exc:
            error = exc
        self._loop.remove_writer(self._fileno)
        if error is not None and self._answered is not None:
            self._settle(self._answered, error)

    def _settle(self, answered: asyncio.Future[None], error: psycopg.Error | None) -> None:
        if answered.done():
            return
        if error is None:
            answered.set_result(None)
        else:
            answered.set_exception(error)

    def close(self) -> None:
        """Close the connection, at once."""
        self.unwatch()
        with suppress(RuntimeError):  # the loop has ended
            self._loop.remove_writer(self._fileno)
        self.pgconn.finish()
        if self._answered is not None:
            self._settle(self._answered, psycopg.OperationalError("the connection was closed"))
