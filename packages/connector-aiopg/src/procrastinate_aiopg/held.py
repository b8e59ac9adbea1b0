"""One aiopg connection in our hands: running statements on it, and judging its health.

Rules

1. Statements run on psycopg2's plain cursor with psycopg2's own casters, so that whatever the
   connection's owner set up (cursor factory, JSON, hstore, UUID) is neither used nor changed.
2. aiopg's timeout of 60 s per statement closes the connection and leaves the server at work;
   statements that run long end by the server's ``statement_timeout``, so ours wait for ever.
3. A connection is checked before a statement is sent and never afterwards: the event loop may
   not have had the time to notice that the server hung up. The server's farewell ("terminating
   connection ...") comes a moment before the end of the stream; an idle connection that has
   received any notice is taken for dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiopg
import psycopg2
from psycopg2 import extensions

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools import plans
from procrastinate.connector_tools.failures import VALUE_ERRORS, value_error
from procrastinate.connector_tools.plans import Plans
from procrastinate.connector_tools.sockets import readable
from procrastinate.errors import ConnectionLost, ConnectorException
from procrastinate_aiopg.calls import Uninterrupted
from procrastinate_psycopg2.driver import adapted, plain_cursor, sever, translate

_NEVER = 365 * 86400.0  # aiopg takes None for "the connection's default"
_IDLE = extensions.TRANSACTION_STATUS_IDLE
_IN_TRANSACTION = (
    extensions.TRANSACTION_STATUS_INTRANS,
    extensions.TRANSACTION_STATUS_INERROR,
)


class Held:
    """A connection and the cursor that our statements run on."""

    __slots__ = ("broken", "connection", "cursor", "idle_since", "plans", "raw")

    def __init__(self, connection: aiopg.Connection, cursor: aiopg.Cursor) -> None:
        self.connection = connection
        self.cursor = cursor
        self.raw: extensions.connection = connection.raw
        #: Not to be given out again, whatever its state.
        self.broken = False
        self.idle_since = 0.0
        #: What the server keeps for it; None: nothing, because the connection is not ours alone.
        self.plans: Plans | None = None

    @classmethod
    async def hold(cls, connection: aiopg.Connection) -> Held:
        """Return a connection with a cursor of ours. Sends nothing.

        Raises `ConnectionLost` if the connection is closed.
        """
        timeout: Any = connection.timeout  # None where we connected: then aiopg sets up no timer
        try:
            cursor = await connection.cursor(
                cursor_factory=_plain_cursor, timeout=None if timeout is None else _NEVER
            )
        except psycopg2.Error as exc:
            raise translate(exc) from exc
        return cls(connection, cursor)

    async def run(self, query: Query, begin: str) -> Rows:
        """Execute a query, with ``begin`` and its settings in the same message."""
        if self.plans is None:
            return await self.send(query, begin + query.set_local(), query.sql)
        return await plans.run_async(self, self.plans, query, begin)

    async def is_direct(self) -> bool:
        """Return whether nothing stands between this connection and one process of the server."""
        ((pid,),) = await self.send(plans.ASK, "", plans.ASK.sql)
        return bool(pid == self.server_pid)

    @property
    def server_pid(self) -> int:
        """The process id that the server, or a pooler, has told."""
        return self.raw.info.backend_pid

    async def send(self, query: Query, front: str, sql: str) -> Rows:
        """Send ``front`` and, in place of the query's text, ``sql`` with the query's values."""
        try:
            _, params = adapted(query)
            await self._send(front + sql, params)
            cursor = self.cursor.raw
            return [] if cursor.description is None else cursor.fetchall()
        except VALUE_ERRORS as exc:
            raise value_error(exc, query) from exc
        except psycopg2.Error as exc:
            raise self._judged(exc) from exc

    async def end(self, command: str) -> str | None:
        """Execute COMMIT or ROLLBACK, and return what the server did."""
        await self.command(command)
        said: str | None = self.cursor.statusmessage
        return said

    def sever(self) -> None:
        self.broken = True
        sever(self.raw)

    async def command(self, sql: str) -> None:
        """Execute a statement of our own, without values and rows."""
        try:
            await self._send(sql, None)
        except psycopg2.Error as exc:
            raise self._judged(exc) from exc

    async def _send(self, sql: str, params: Mapping[str, Any] | None) -> None:
        call = self.cursor.execute(sql, params)
        try:
            await Uninterrupted(call, self.connection)
        except RuntimeError as exc:
            raise ConnectorException(
                "the connection is in use by another coroutine: a connection runs one statement"
                " at a time"
            ) from exc

    def _judged(self, exc: psycopg2.Error) -> ConnectorException:
        error = translate(exc)
        if isinstance(error, ConnectionLost):
            self.broken = True
        if self.plans is not None and self.plans.refused(error):
            self.broken = True
        return error

    @property
    def in_transaction(self) -> bool:
        return self.raw.get_transaction_status() in _IN_TRANSACTION

    @property
    def reusable(self) -> bool:
        return not self.broken and self.raw.get_transaction_status() == _IDLE


def _plain_cursor(raw: Any, name: str | None = None) -> Any:
    return plain_cursor(raw)


def close_quietly(connection: aiopg.Connection) -> None:
    """Close a connection, also one whose event loop has ended."""
    try:
        connection.close()
    except RuntimeError:  # an event loop that refuses everything once it is closed
        connection.raw.close()


def is_alive(connection: aiopg.Connection) -> bool:
    """Say whether an idle connection is still the server's, as far as it can be known."""
    raw = connection.raw
    if raw.closed:
        return False
    if not readable(raw.fileno()):
        return True
    heard = list(raw.notices)
    try:
        raw.poll()
    except psycopg2.Error:
        return False
    return not raw.closed and list(raw.notices) == heard
