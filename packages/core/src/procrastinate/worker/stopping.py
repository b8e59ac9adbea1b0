"""How a worker is told to stop: signals, and the order of things they ask for.

The first SIGINT or SIGTERM asks for a graceful end, the second for an end now.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from procrastinate.worker.log import logger

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequests:
    """Whether an end was asked for: ``gracefully`` by the first request, ``now`` by the second."""

    def __init__(self, on_request: Callable[[], None]) -> None:
        self._on_request = on_request
        self.gracefully = asyncio.Event()
        self.now = asyncio.Event()
        self._limits: dict[asyncio.Timeout, float] = {}

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

    @asynccontextmanager
    async def limit(self, seconds: float | None, *, stopping: float) -> AsyncIterator[None]:
        """A block that may take so many seconds (None: any), and fewer once an end is asked for.

        It gets no more time when an end now is asked for. Raises TimeoutError.
        """
        async with asyncio.timeout(seconds) as limit:
            self._limits[limit] = stopping
            self._tighten(limit)
            try:
                yield
            finally:
                del self._limits[limit]

    def _tighten(self, limit: asyncio.Timeout) -> None:
        if not self.gracefully.is_set() or limit.expired():
            return
        left = 0.0 if self.now.is_set() else self._limits[limit]
        deadline = asyncio.get_running_loop().time() + left
        limit.reschedule(min(deadline, limit.when() or deadline))

    @contextmanager
    def on_signals(self, *, install: bool) -> Iterator[None]:
        """Let signals make requests, where this is the main thread and the platform allows it."""
        loop = asyncio.get_running_loop()
        installed = []
        if install and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                previous = signal.getsignal(number)
                try:
                    loop.add_signal_handler(number, self.request)
                except NotImplementedError:  # Windows
                    signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.request))
                installed.append((number, previous))
        try:
            yield
        finally:
            for number, previous in installed:
                try:
                    loop.remove_signal_handler(number)
                except NotImplementedError:
                    pass
                signal.signal(number, previous if previous is not None else signal.SIG_DFL)
