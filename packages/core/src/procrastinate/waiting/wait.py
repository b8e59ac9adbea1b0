"""One wait for the end of a job, in a thread or on an event loop."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future

from procrastinate.model.endings.waits import Outcome


class PlainWait:
    """A thread that waits."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        self.is_told = False  # whether it has got its outcome
        self.is_over = False  # whether the caller waits no more
        self._outcome: Future[Outcome] = Future()

    def give(self, outcome: Outcome) -> None:
        """Tell the thread how the wait has ended."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def outcome(self, timeout: float) -> Outcome:
        """Wait, for ``timeout`` seconds at most. Raises TimeoutError."""
        return self._outcome.result(None if timeout > threading.TIMEOUT_MAX else timeout)


class AsyncWait:
    """A coroutine that waits, on whatever event loop."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        self.loop = asyncio.get_running_loop()
        self.is_told = False
        self._is_over = False
        self._outcome: asyncio.Future[Outcome] = self.loop.create_future()

    @property
    def is_over(self) -> bool:
        """Whether the caller waits no more."""
        return self._is_over or self.loop.is_closed()

    @is_over.setter
    def is_over(self, is_over: bool) -> None:
        self._is_over = is_over

    def give(self, outcome: Outcome) -> None:
        """Tell the coroutine how the wait has ended; on its loop."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def outcome(self, timeout: float) -> Outcome:
        """Wait, for ``timeout`` seconds at most. Raises TimeoutError."""
        async with asyncio.timeout(None if timeout == math.inf else timeout):
            return await self._outcome


Wait = PlainWait | AsyncWait


def give_all(ended: Iterable[tuple[Wait, Outcome]]) -> None:
    """Tell all of these how their waits have ended. Each loop is woken once."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[AsyncWait, Outcome]]]
    by_loop = defaultdict(list)
    for wait, outcome in ended:
        if isinstance(wait, PlainWait):
            wait.give(outcome)
        else:
            by_loop[wait.loop].append((wait, outcome))
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_give, some)
        except RuntimeError:  # the loop is closed, and no caller waits there
            pass


def _give(some: list[tuple[AsyncWait, Outcome]]) -> None:
    for wait, outcome in some:
        wait.give(outcome)
