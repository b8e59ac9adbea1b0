"""How a worker is told to stop, and the order of things that this asks for.

The first request asks for a graceful end, the second for an end now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from procrastinate.worker.log import logger


class StopRequests:
    """Whether an end was asked for: ``gracefully`` by the first request, ``now`` by the second."""

    def __init__(self, on_request: Callable[[], None]) -> None:
        self._on_request = on_request
        self.gracefully = asyncio.Event()
        self.now = asyncio.Event()
        self._limits: dict[asyncio.Timeout, tuple[float, float]] = {}  # stopping, and stopping now

    def request(self) -> None:
        """Ask for an end: gracefully, or now if that was asked for already."""
        if self.gracefully.is_set():
            logger.warning("stopping now: running jobs are aborted or handed back")
            self.now.set()
        else:
            logger.info("stopping: no more jobs are fetched, running ones may end")
            self.gracefully.set()
        for limit in self._limits:
            self._tighten(limit)
        self._on_request()

    def request_now(self) -> None:
        """Ask for an end now, whatever was asked for before."""
        while not self.now.is_set():
            self.request()

    @asynccontextmanager
    async def limit(
        self, seconds: float | None, *, stopping: float, now: float = 0.0
    ) -> AsyncIterator[None]:
        """A block that may take ``seconds`` (None: any time), and less once an end is asked for.

        It gets ``now`` seconds more when an end now is asked for. Raises TimeoutError.
        """
        async with asyncio.timeout(seconds) as limit:
            self._limits[limit] = (stopping, now)
            self._tighten(limit)
            try:
                yield
            finally:
                del self._limits[limit]

    def _tighten(self, limit: asyncio.Timeout) -> None:
        if not self.gracefully.is_set() or limit.expired():
            return
        stopping, now = self._limits[limit]
        left = now if self.now.is_set() else stopping
        deadline = asyncio.get_running_loop().time() + left
        limit.reschedule(min(deadline, limit.when() or deadline))
