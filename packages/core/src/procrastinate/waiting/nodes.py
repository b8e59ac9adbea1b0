"""The nodes of a distributed database that are away: only the waits for their jobs are late."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from procrastinate.drive import Step, run_steps_async
from procrastinate.errors import ConnectorException
from procrastinate.storage.nodes import partitions_away
from procrastinate.waiting.way import Way

logger = logging.getLogger("procrastinate.waiting")

ASK_EVERY = 1.0  # seconds


class Nodes:
    """Asks on a connection of its own, which it has only as long as a node is away."""

    def __init__(
        self, make_way: Callable[[], Way], *, on_change: Callable[[Collection[int]], None]
    ) -> None:
        self._make_way = make_way
        self._on_change = on_change
        self._asking: asyncio.Task[None] | None = None

    async def find(self, way: Way) -> bool:
        """Return whether a node is away, and begin to ask until it is back."""
        away = await _away(way)
        if away:
            self._on_change(away)
            if self._asking is None or self._asking.done():
                logger.warning("a part of the database does not answer: waits for its jobs go on")
                self._asking = asyncio.create_task(self._ask())
        return bool(away)

    async def _ask(self) -> None:
        try:
            await self._ask_until_back()
        except Exception:
            logger.exception("whether a part of the database is back cannot be asked")
            await asyncio.sleep(ASK_EVERY)
            self._on_change(())  # the next step for its jobs finds out

    async def _ask_until_back(self) -> None:
        way = self._make_way()
        try:
            while True:
                await asyncio.sleep(ASK_EVERY)
                away = await _away(way)
                if away is not None:
                    self._on_change(away)
                    if not away:
                        return
        finally:
            await way.close_async()

    def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()


async def _away(way: Way) -> Collection[int] | None:
    """Return the partitions that are away; None if the database itself does not say."""

    async def run_step(step: Step) -> object:
        return await way.run_async(step.flow, limit=step.limit)

    try:
        await way.open_async()
        return list(await run_steps_async(partitions_away(), run_step))
    except (ConnectorException, TimeoutError):
        return None
