"""Hearing NOTIFY on a connection that does nothing else.

The connection is closed at the end instead of sent an UNLISTEN: LISTEN, and notifications that
were not fetched, would survive on a connection given back. aiopg reports a server that goes away to
a coroutine that waits for a notification, at once, after those that had arrived.

Behind a pooler it is refused (`not_listening`); core says so once in the log, and polls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

import aiopg
import psycopg2

from procrastinate.connector import Notification
from procrastinate.connector_tools.channels import listen_sql
from procrastinate.connector_tools.failures import not_listening, one_line
from procrastinate.errors import ConnectionLost, ConnectorException
from procrastinate_aiopg.held import Held

Acquire = Callable[[], Awaitable[aiopg.Connection]]
Release = Callable[[aiopg.Connection], None]


class Listener:
    """A block that LISTENs, and the iterator over what it hears."""

    def __init__(self, channels: Sequence[str], acquire: Acquire, release: Release) -> None:
        self._sql = listen_sql(channels)
        self._acquire = acquire
        self._release = release
        self._connection: aiopg.Connection | None = None

    async def __aenter__(self) -> Listener:
        connection = await self._acquire()
        try:
            held = await Held.hold(connection)
            if not await held.is_direct():
                raise not_listening("listen_dsn")
            if self._sql:
                await held.command(self._sql)
        except BaseException:
            self._release(connection)
            raise
        self._connection = connection
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._release(connection)

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Notification:
        if self._connection is None:
            raise ConnectorException("this listener has ended")
        try:
            heard = await self._connection.notifies.get()
        except psycopg2.Error as exc:
            raise ConnectionLost(f"the listening connection broke: {one_line(exc)}") from exc
        return Notification(channel=heard.channel, payload=heard.payload)
