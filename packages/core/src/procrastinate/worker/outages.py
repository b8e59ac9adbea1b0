"""Parts of a distributed database that do not answer, while the database itself does.

Rules

1. If a statement about one partition fails because of its node, that partition is *away*. Nothing
   is asked of it but one probe: others go on at full speed, on the same connections.
2. One of those that are away is probed every `PROBE_EVERY` seconds. If it answers, the next one is
   probed at once, because one node may hold them all.
3. An outage is told in one line for each kind of error, however many partitions it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from procrastinate.drive import Limit, at
from procrastinate.errors import ConnectorException, may_be_of_one_node
from procrastinate.model.partitions import Partitions
from procrastinate.storage.workers import probe_partition
from procrastinate.worker.calls import Calls
from procrastinate.worker.log import logger

PROBE_EVERY = 1.0  # seconds
PROBE = Limit(server=1.0, client=2.0)


class Outages:
    """Knows for one shift which partitions are away."""

    def __init__(self, calls: Calls, partitions: Partitions) -> None:
        self._calls = calls
        self._are_many = partitions.are_many
        #: The partitions that are away, the one to be probed next first.
        self.away: dict[int, None] = {}
        #: Called with each partition that is back.
        self.on_back: list[Callable[[int], None]] = []
        self._told: set[str | None] = set()
        self._some = asyncio.Event()

    def is_one(self, exc: BaseException) -> bool:
        """Return whether an error of a statement about one partition is only about its node."""
        return self._are_many and may_be_of_one_node(exc)

    def failed(self, partition: int, exc: BaseException) -> None:
        """Note that a partition is away."""
        self.tell(exc)
        self.away[partition] = None

    def tell(self, exc: BaseException) -> None:
        """Log an error of this kind, if it is the first one of an outage.

        A read over all partitions does not say which of them are away.
        """
        self._some.set()
        kind = exc.sqlstate if isinstance(exc, ConnectorException) else None
        if kind not in self._told:
            self._told.add(kind)
            logger.warning(
                "a part of the database does not answer, the jobs there have to wait: %s",
                exc,
                extra={"action": "partition_away"},
            )

    async def run(self) -> None:
        """Probe what is away until it is back; go on until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(PROBE_EVERY)
            while self.away and await self._is_back(next(iter(self.away))):
                pass
            if not self.away:
                self._some.clear()
                self._told.clear()
                logger.info("all parts of the database answer again")

    async def _is_back(self, partition: int) -> bool:
        try:
            await self._calls.run_async(at(partition, probe_partition()), limit=PROBE)
        except (ConnectorException, TimeoutError):
            self.away.pop(partition)
            self.away[partition] = None  # the others first
            return False
        self.away.pop(partition)
        for tell in self.on_back:
            tell(partition)
        return True
