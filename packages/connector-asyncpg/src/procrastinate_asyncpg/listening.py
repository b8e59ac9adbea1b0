"""Hearing NOTIFY on a connection that does nothing else.

The connection is closed at the end instead of sent an UNLISTEN: notifications that
were not fetched would survive on a connection given back. asyncpg tells of a connection that ends
by a termination listener.

Behind a pooler it is refused (`not_listening`); core says so once in the log, and polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

import asyncpg

from procrastinate.connector import Notification
from procrastinate.connector_tools.channels import listen_sql
from procrastinate.connector_tools.failures import lost, not_listening
from procrastinate.errors import ConnectorException
from procrastinate_asyncpg.calls import is_direct, to_its_end
from procrastinate_asyncpg.kinds import Connection

Acquire = Callable[[], Awaitable[Connection]]
Release = Callable[[Connection], Awaitable[None]]


class Listener:
    """A block that LISTENs, and the iterator over what it hears."""

    def __init__(self, channels: Sequence[str], acquire: Acquire, release: Release) -> None:
        listen_sql(channels)  # refuses what cannot be a channel
        self._channels = channels
        self._acquire = acquire
        self._release = release
        self._connection: Connection | None = None
        self._heard: asyncio.Queue[Notification | None] = asyncio.Queue()

    async def __aenter__(self) -> Listener:
        connection = await self._acquire()
        try:
            if not await is_direct(connection):
                raise not_listening("listen_dsn")
            await to_its_end(connection, self._listen(connection))
        except BaseException:
            await self._release(connection)
            raise
        self._connection = connection
        return self

    async def _listen(self, connection: Connection) -> None:
        connection.add_termination_listener(self._ended)
        for channel in self._channels:
            await connection.add_listener(channel, self._notified)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._release(connection)

    def _notified(self, connection: object, pid: int, channel: str, payload: object) -> None:
        self._heard.put_nowait(Notification(channel=channel, payload=str(payload)))

    def _ended(self, connection: object) -> None:
        self._heard.put_nowait(None)

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Notification:
        if self._connection is None:
            raise ConnectorException("this listener has ended")
        heard = await self._heard.get()
        if heard is None:
            self._heard.put_nowait(None)  # for the next who asks
            ended = asyncpg.ConnectionDoesNotExistError("the listening connection was closed")
            raise lost(ended) from ended
        return heard
