"""Parts of a distributed database that do not answer, while the database itself does.

Rules

1. If a statement about one partition fails because of its node, that partition is *away*. Nothing
   is asked of it but one probe: others go on at full speed, on the same connections.
2. After such a failure, and after a call without an answer, each node is asked for something that
   costs nothing. All partitions of one that fails are away: a silent node is met once, and not once
   for each of its partitions. If the database does not answer that, it is no node's outage.
3. One of those that are away is probed every `PROBE_EVERY` seconds. If it answers, the next one is
   probed at once, because one node may hold them all.
4. An outage is told in one line for each kind of error, however many partitions it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from procrastinate.drive import NoAnswer, Step, at, run_steps_async
from procrastinate.errors import ConnectorException, may_be_of_one_node
from procrastinate.model.partitions import Partitions
from procrastinate.storage.nodes import PROBE, partitions_away
from procrastinate.storage.workers import probe_partition
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.log import logger

PROBE_EVERY = 1.0  # seconds


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
        self._asking = asyncio.Lock()

    async def is_one(self, exc: BaseException, partition: int | None = None) -> bool:
        """Return whether an error is only about a node, and note which partitions are away.

        ``partition`` is the one that the statement was about (None: it was about all).
        """
        if not self._are_many:
            return False
        if may_be_of_one_node(exc):
            if partition is None:  # it does not say which of them are away
                self._tell(exc)
            else:
                self.failed(partition, exc)
            await self._ask_nodes()
            return True
        return isinstance(exc, NoAnswer | TimeoutError) and await self._is_silence(partition)

    async def _is_silence(self, partition: int | None) -> bool:
        """Return whether a call had no answer because of a node."""
        if partition is not None and partition in self.away:
            return True
        return await self._ask_nodes() and (partition is None or partition in self.away)

    async def _ask_nodes(self) -> bool:
        """Ask each node (rule 2), and return whether one fails."""
        async with self._asking:
            try:
                found = await run_steps_async(partitions_away(), self._run_step)
            except (ConnectorException, TimeoutError):
                return False  # the database itself
        for partition, exc in found.items():
            self.failed(partition, exc)
        return bool(found)

    async def _run_step(self, step: Step) -> object:
        return await self._calls.run_async(step.flow, limit=step.limit)

    def failed(self, partition: int, exc: BaseException) -> None:
        """Note that a partition is away."""
        self._tell(exc)
        self.away.setdefault(partition)

    def _tell(self, exc: BaseException) -> None:
        """Log an error of this kind, if it is the first one of an outage."""
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
