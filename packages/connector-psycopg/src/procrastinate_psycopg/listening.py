"""Hearing NOTIFY on a connection that does nothing else.

At the end a connection of ours is closed. A pool of the application's gets its connection back with
no LISTEN, and no notification that was not fetched; closed, if that cannot be had soon.

Behind a pooler it is refused (`not_listening`); core says so once in the log, and polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import psycopg

from procrastinate.connector import Notification, Query
from procrastinate.connector_tools.channels import listen_sql, quoted
from procrastinate.connector_tools.failures import not_listening, one_line
from procrastinate.errors import ConnectionLost, ConnectorException
from procrastinate_psycopg.connecting import connect_async
from procrastinate_psycopg.leases import AsyncLease

Acquire = Callable[[], Awaitable[AsyncLease]]
#: Lets a connection go. The SQL ends what it listens to. None: it does not listen, or nothing can
#: be awaited.
Release = Callable[[AsyncLease, str | None], Awaitable[None]]


class Listener:
    """A block that LISTENs, and the iterator over what it hears."""

    def __init__(self, channels: Sequence[str], acquire: Acquire, release: Release) -> None:
        self._sql = listen_sql(channels)
        self._end_sql = ";".join(f"UNLISTEN {quoted(channel)}" for channel in channels)
        self._acquire = acquire
        self._release = release
        self._lease: AsyncLease | None = None
        self._ears: _Ears | None = None

    async def __aenter__(self) -> Listener:
        lease = await self._acquire()
        try:
            if not await lease.is_direct():
                raise not_listening("listen_conninfo")
            ears = _Ears(lease)  # from now on: what comes with the answer is heard as well
            if self._sql:
                await lease.run(Query("listen", self._sql))
        except BaseException:
            await self._release(lease, None)
            raise
        self._lease, self._ears = lease, ears
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            if self._ears is not None:
                self._ears.close()
            await self._release(lease, None if isinstance(exc, GeneratorExit) else self._end_sql)

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Notification:
        if self._lease is None or self._ears is None:
            raise ConnectorException("this listener has ended")
        return await self._ears.next()


class Listeners:
    """The connections of our own that listen: they end with the connector."""

    def __init__(self) -> None:
        self._leases: set[AsyncLease] = set()

    def listener(self, channels: Sequence[str], parameters: Mapping[str, Any]) -> Listener:
        """Return a block that listens on a new connection."""

        async def acquire() -> AsyncLease:
            lease = await connect_async(parameters)
            self._leases.add(lease)
            return lease

        return Listener(channels, acquire, self._release)

    async def _release(self, lease: AsyncLease, _: str | None) -> None:
        self._leases.discard(lease)
        lease.close()

    def close(self) -> None:
        """Close them, at once."""
        leases, self._leases = self._leases, set()
        for lease in leases:
            lease.close()


class _Ears:
    """What has been heard on one connection, and the wait for more."""

    def __init__(self, lease: AsyncLease) -> None:
        self._lease = lease
        self._pgconn = lease.pgconn
        self._loop = asyncio.get_running_loop()
        self._fileno = self._pgconn.socket
        self._news: asyncio.Future[None] | None = None

    async def next(self) -> Notification:
        """Return the next notification. Raises `ConnectionLost`."""
        while (heard := self._pgconn.notifies()) is None:
            self._lease.unwatch()
            self._news = self._loop.create_future()
            self._loop.add_reader(self._fileno, self._read)
            try:
                await self._news
            except psycopg.Error as exc:
                raise ConnectionLost(f"the listening connection broke: {one_line(exc)}") from exc
            finally:
                self.close()
        return Notification(heard.relname.decode(), heard.extra.decode())

    def _read(self) -> None:
        news = self._news
        if news is None or news.done():
            return
        try:
            self._pgconn.consume_input()
        except psycopg.Error as exc:
            news.set_exception(exc)
        else:
            news.set_result(None)

    def close(self) -> None:
        """Stop waiting. The lease watches the socket again when it next sends something."""
        self._news = None
        self._lease.unwatch()
        try:
            self._loop.remove_reader(self._fileno)
        except RuntimeError:  # the loop has ended
            pass
