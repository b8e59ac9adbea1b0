"""Hearing NOTIFY on a connection that does nothing else, and that is closed at the end.

Behind a pooler it is refused (`not_listening`); core says so once in the log, and polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType

from procrastinate.connector import Notification
from procrastinate.connector_tools.channels import listen_sql
from procrastinate.connector_tools.failures import not_listening
from procrastinate.errors import ConnectionLost, ConnectorException
from procrastinate_sqlalchemy_async.engines import Source, is_direct
from procrastinate_sqlalchemy_async.leases import Lease


class Listener:
    """A block that LISTENs, and the iterator over what it hears."""

    def __init__(self, source: Source, channels: Sequence[str]) -> None:
        self._source = source
        self._channels = channels
        listen_sql(channels)  # refuses a name that no channel can have
        self._lease: Lease | None = None
        self._heard: asyncio.Queue[Notification | Exception | None] = asyncio.Queue()

    async def __aenter__(self) -> Listener:
        lease = await self._source.acquire_to_listen()
        try:
            if not await is_direct(lease):
                raise not_listening("listen_dsn")
            await lease.driver.listen(self._channels, self._heard.put_nowait)
        except BaseException as exc:
            lease.broken = True
            await self._source.give_back(lease)
            if isinstance(exc, lease.driver.errors):
                raise ConnectionLost(f"the listening connection broke: {exc}") from exc
            raise
        self._lease = lease
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.driver.stop_listening()
            lease.broken = True
            await self._source.give_back(lease)

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Notification:
        if self._lease is None:
            raise ConnectorException("this listener has ended")
        heard = await self._heard.get()
        if isinstance(heard, Notification):
            return heard
        self._heard.put_nowait(heard)  # for the next who asks
        raise ConnectionLost(
            f"the listening connection broke: {heard or 'the server has closed it'}"
        ) from heard
