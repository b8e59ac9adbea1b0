"""Which queues are paused, as far as one worker knows.

Rules

1. Nothing is claimed before it was read which queues are paused.
2. It is read again when a notification says that this has changed, when LISTEN is in force anew,
   and when a pause is to end by itself. A worker that does not hear notifications reads in each
   polling interval. One that hears them reads every `READ_EVERY` seconds, if all of this fails.
3. While it cannot be read, what was read last counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from procrastinate.errors import ConnectorException
from procrastinate.model.job import NAME_SHOWN
from procrastinate.model.queues import EVERY_QUEUE, NO_PAUSES, SPARED, Pause, Pauses
from procrastinate.model.text import printable
from procrastinate.storage.queues import InForce, pauses_in_force
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.log import logger
from procrastinate.worker.telling import UNSEEN, Telling
from procrastinate.worker.waking import woken_within

READ_EVERY = 60.0  # seconds
SHORTEST_SLEEP = 0.001  # seconds: the end of a pause is told in microseconds of another clock


class Paused:
    """What the parts of a worker share: the pauses that are in force."""

    def __init__(self) -> None:
        self.now: Pauses = NO_PAUSES
        self.is_known = False  # whether they were read (rule 1)

    def has(self, queue: str) -> bool:
        """Whether a queue is paused."""
        return bool(self.now) and self.now.has(queue)


class Pausing:
    """Reads which queues are paused, for one shift; it serves some ``queues`` (None: all).

    ``on_paused`` is called if queues were paused, ``on_resumed`` if a pause has ended, and with the
    first answer.
    """

    def __init__(
        self,
        calls: Calls,
        paused: Paused,
        queues: Sequence[str] | None,
        *,
        interval: float,
        on_paused: Callable[[], None],
        on_resumed: Callable[[], None],
        telling: Telling = UNSEEN,
    ) -> None:
        self._calls = calls
        self._paused = paused
        self._queues = queues
        self._interval = interval
        self._on_paused = on_paused
        self._on_resumed = on_resumed
        self._telling = telling
        self._listens = False
        self._wake = asyncio.Event()

    def look_now(self) -> None:
        """Read again: a notification said that something has changed."""
        self._wake.set()

    def listening(self, listens: bool) -> None:
        """Note whether notifications are heard from now on; read again, if that is news."""
        if listens or self._listens:  # not each time that it fails to listen
            self._wake.set()
        self._listens = listens

    async def run(self) -> None:
        """Read whenever that is due, until cancelled."""
        backoff = Backoff()
        while True:
            self._wake.clear()
            try:
                found = await self._calls.run_async(pauses_in_force())
            except (ConnectorException, TimeoutError) as exc:
                backoff.warn("it cannot be read which queues are paused", exc)
                await woken_within(self._wake, backoff.next_wait())
                continue
            backoff.reset()
            self._read(found.pauses)
            await woken_within(self._wake, self._seconds_to_next(found))  # rule 2

    def _seconds_to_next(self, found: InForce) -> float:
        seconds = READ_EVERY if self._listens else self._interval
        if found.seconds is None:
            return seconds
        return min(seconds, max(found.seconds, SHORTEST_SLEEP))

    def _read(self, pauses: Pauses) -> None:
        before, was_known = self._paused.now, self._paused.is_known
        self._paused.now, self._paused.is_known = pauses, True
        ended = set(before.names) - set(pauses.names)
        if set(pauses.names) - set(before.names):
            self._on_paused()
        if ended or not was_known:
            self._on_resumed()
        self._tell(before.pauses, pauses.pauses, ended)

    def _tell(self, before: Sequence[Pause], now: Sequence[Pause], ended: set[str]) -> None:
        known = frozenset(before)  # there may be thousands
        for pause in now:
            if pause not in known and self._serves(pause):
                _log(pause)
                self._telling.paused(pause.queue, pause)
        for pause in before:
            if pause.queue in ended and self._serves(pause):
                extra = {"action": "resume_queue", "queue": pause.queue}
                logger.info("%s resumed", _named(pause.queue), extra=extra)
                self._telling.paused(pause.queue, None)

    def _serves(self, pause: Pause) -> bool:
        if self._queues is None or pause.queue == EVERY_QUEUE:
            return True
        return pause.queue in self._queues


def _log(pause: Pause) -> None:
    said = "" if pause.by is None else f" by {printable.line(pause.by, NAME_SHOWN)}"
    if pause.until is not None:
        said += f" until {pause.until.isoformat()}"
    if pause.reason is not None:
        said += f": {printable.line(pause.reason)}"
    extra = {"action": "pause_queue", "queue": pause.queue}
    logger.info("%s paused%s", _named(pause.queue), said, extra=extra)


def _named(queue: str) -> str:
    """Return the beginning of a sentence about a queue, verb included."""
    if queue == EVERY_QUEUE:
        return f"all queues but {SPARED} are"
    return f"queue {printable.line(queue, NAME_SHOWN)} is"
