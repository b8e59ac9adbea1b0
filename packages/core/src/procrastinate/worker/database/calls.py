"""A worker's calls to the database on the event loop.

Rules

1. Each has a limit: on the server, and a longer one here (`procrastinate.drive.Limit`). A call that
   is late is a dead connection: it is severed, and the pool drops its idle ones.
2. At most `AT_ONCE` run at a time, so that fetching, writing and housekeeping together use no more
   connections of the pool than fetching and writing alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from procrastinate.connector import Connector
from procrastinate.drive import Flow, Limit, T, at
from procrastinate.errors import ConnectionLost
from procrastinate.gateway import Gateway
from procrastinate.worker.database.line import CALL

AT_ONCE = 2
#: For statements of a distributed database about one partition. It is met by each call that waits
#: for a node when that falls silent, and other partitions wait for these calls.
OF_A_PARTITION = Limit(server=4.0, client=5.0)


class Calls:
    """Runs storage flows for one shift."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turns = asyncio.Semaphore(AT_ONCE)
        #: Called if a connection was lost: others may be lost as well.
        self.on_loss: Callable[[], None] = lambda: None

    @property
    def connector(self) -> Connector:
        """The app's connector."""
        return self._gateway.connector

    async def run_async(
        self, flow: Flow[T], *, transaction: bool = False, limit: Limit | None = None
    ) -> T:
        """Run a flow and return its value. Raises `ConnectorException` and TimeoutError."""
        async with self._turns:
            try:
                return await self._gateway.run_async(
                    flow, transaction=transaction, limit=limit or CALL
                )
            except ConnectionLost:
                self.on_loss()
                raise


class CallsAt(Calls):
    """The same calls, for the jobs and locks of one partition."""

    def __init__(self, calls: Calls, partition: int) -> None:
        self._calls = calls
        self._partition = partition

    @property
    def connector(self) -> Connector:
        """The app's connector."""
        return self._calls.connector

    async def run_async(
        self, flow: Flow[T], *, transaction: bool = False, limit: Limit | None = None
    ) -> T:
        """Run a flow in the partition and return its value. See `Calls.run_async`."""
        flow = at(self._partition, flow)
        limit = limit or OF_A_PARTITION
        return await self._calls.run_async(flow, transaction=transaction, limit=limit)
