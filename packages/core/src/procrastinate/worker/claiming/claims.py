"""Doing the steps of a claim in the database, for one worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from procrastinate.errors import ConnectorException
from procrastinate.model.claiming.scan_steps import Scan
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.model.values import replace
from procrastinate.storage import claim as flows
from procrastinate.storage import handing_over
from procrastinate.storage.claim import Claim, Promotion
from procrastinate.storage.finish import Ended
from procrastinate.storage.handing_over import HandedOver
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.helpers.pausing import Paused
from procrastinate.worker.log import logger


class Claims:
    """Runs scans and promotions for a worker of some queues (None: of all)."""

    def __init__(
        self,
        calls: Calls,
        worker_id: int,
        queues: Sequence[str] | None,
        unknown: UnknownTasks | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        paused: Paused | None = None,
        makes_slots: bool = False,
    ) -> None:
        self._calls = calls
        self._worker_id = worker_id
        self._queues = queues
        self._unknown = UnknownTasks() if unknown is None else unknown
        self._paused = Paused() if paused is None else paused
        self._clock = clock
        self._makes_slots = makes_slots  # for locks: a distributed database needs them

    def serves(self, queue: str) -> bool:
        """Whether this worker works on a queue now: it may be paused."""
        return (self._queues is None or queue in self._queues) and not self._paused.has(queue)

    async def filled_in(self, scan: Scan) -> Scan:
        """Return a scan with its queues: all that are served, if it looks everywhere.

        Paused ones are left out.
        """
        if scan.everywhere and not scan.queues:
            queues = self._queues
            if queues is None:
                queues = await self._calls.run_async(flows.ready_queues())
            scan = replace(scan, queues=tuple(queues))
        return scan.without(self._paused.now) if self._paused.now else scan

    async def scan(self, scan: Scan) -> Claim:
        """Claim what a scan is about, but no job of the tasks that the worker does not know."""
        if not scan.queues:
            return Claim([])
        return await self._calls.run_async(
            flows.claim(
                scan,
                served=self._queues,
                unknown_names=self._unknown.left_out(self._clock()),
                paused=self._paused.now,
                worker_id=self._worker_id,
                loads=self._calls.connector.json_loads,
                makes_slots=self._makes_slots,
            )
        )

    async def hand_over(self, ended: Sequence[Ended], limit: int) -> HandedOver:
        """Write that jobs with locks have succeeded, and begin the next ones of their lines."""
        return await self._calls.run_async(
            handing_over.hand_over(
                ended,
                now=time.monotonic(),
                worker_id=self._worker_id,
                limit=limit,
                loads=self._calls.connector.json_loads,
                served=self._queues,
                unknown_names=self._unknown.left_out(self._clock()),
                paused=self._paused.now,
            )
        )

    async def promote(self, *, failed_before: bool) -> Promotion | None:
        """Make a batch of scheduled jobs ready whose time has come; return None if that fails."""
        try:
            return await self._calls.run_async(flows.promote_due())
        except ConnectorException as exc:
            if not failed_before:
                logger.warning("scheduled jobs cannot be made ready for now: %s", exc)
            return None

    async def is_anything_ready(self) -> bool:
        """Return whether a job is ready in the queues that are served."""
        return await self._calls.run_async(
            flows.is_anything_ready(
                queues=self._queues,
                unknown_names=self._unknown.left_out(self._clock()),
                paused=self._paused.now,
            )
        )
