"""The deadline of one call to the database, which runs in the current task.

One sweep for all calls of an event loop looks which are late, four times a second. A timer for each
would take a tenth of a short call (9 of 90 us).
"""

from __future__ import annotations

import asyncio
import weakref

from procrastinate.connector import AsyncSessionExecutor

SWEEP_EVERY = 0.25  # seconds
SEVERING_MAY_TAKE = 5.0  # seconds until a call that was severed has to have ended


class Deadline:
    """After its time, severs the connection or, if there is none yet, cancels the task."""

    __slots__ = (
        "_before",
        "_cancelled",
        "_executor",
        "_loop",
        "_seconds",
        "_sweep",
        "_task",
        "at",
        "severed",
    )

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()  # requests to cancel that are not this deadline's
        self._loop = task.get_loop()
        self._seconds = seconds
        self._executor: AsyncSessionExecutor | None = None
        self._cancelled = False
        self.severed = False
        self.at = self._loop.time() + seconds
        self._sweep = _sweep_of(self._loop)
        self._sweep.add(self)

    def connected(self, executor: AsyncSessionExecutor, *, anew: bool = True) -> None:
        """Note that there is a connection now; the time begins ``anew``."""
        self._executor = executor
        if anew:
            self.at = self._loop.time() + self._seconds

    def over(self) -> None:
        """Do nothing more."""
        self._sweep.remove(self)

    def is_cause_of(self, exc: BaseException) -> bool:
        """Return whether an exception is the cancellation that this deadline asked for."""
        if not self._cancelled:
            return False
        self._cancelled = False
        return self._task.uncancel() <= self._before and isinstance(exc, asyncio.CancelledError)

    def reached(self, now: float) -> None:
        """Sever the connection. Give the call up if there is none, or if that ended nothing."""
        self.at = now + SEVERING_MAY_TAKE
        if self._executor is None or self.severed:
            self._cancelled = True
            self._task.cancel()
        else:
            self.severed = True
            self._executor.sever()


class _Sweep:
    """The deadlines of the calls under way on one event loop, and the next look at them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._deadlines: set[Deadline] = set()
        self._scheduled = False
        self._due = 0.0  # the next look

    def add(self, deadline: Deadline) -> None:
        self._deadlines.add(deadline)
        if not self._scheduled:
            self._schedule()

    def remove(self, deadline: Deadline) -> None:
        self._deadlines.discard(deadline)

    def _schedule(self) -> None:
        loop = self._loop()
        if loop is not None:
            self._due = loop.time() + SWEEP_EVERY
            loop.call_at(self._due, self._look)
            self._scheduled = True

    def _look(self) -> None:
        loop = self._loop()
        if loop is None:
            return
        now = loop.time()
        late = now - self._due
        self._scheduled = False
        if self._deadlines:
            self._schedule()
        for deadline in list(self._deadlines):
            if (
                late > SWEEP_EVERY
            ):  # the loop was blocked: answers may lie ready that it has not read
                deadline.at += late
            if deadline.at <= now:
                deadline.reached(now)


_sweeps: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sweep] = weakref.WeakKeyDictionary()


def _sweep_of(loop: asyncio.AbstractEventLoop) -> _Sweep:
    sweep = _sweeps.get(loop)
    if sweep is None:
        sweep = _sweeps[loop] = _Sweep(loop)
    return sweep
