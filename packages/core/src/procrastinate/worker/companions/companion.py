"""A companion: a thread beside the event loop, with a connection of its own.

Rules

1. A task that blocks the event loop, or a pool that the tasks have exhausted, does not delay what a
   companion does. Code that holds the interpreter's lock does.
2. While the database is away, it tries again: `ConnectorException` is no death.
3. Whatever else a round raises is a death. It is logged, and the companion starts again after
   `REBORN_AFTER` seconds, with a new connection.
4. One that does not end in time sends nothing more. A sign of life that came after the worker has
   left would enter it again.
5. `DEATHS` of them within `DEATHS_WITHIN` seconds are too many: the companion gives up, and the
   shift ends because of it. It ends as well if the thread is gone without a word (`is_alive`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from procrastinate.errors import ConnectorException
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.line import Line
from procrastinate.worker.log import logger

REBORN_AFTER = 1.0  # seconds
DEATHS = 3
DEATHS_WITHIN = 60.0  # seconds


class Duty(Protocol):
    """What a companion does, round by round."""

    @property
    def name(self) -> str:
        """What its thread is called."""

    @property
    def undone(self) -> str:
        """The work that waits while the database is away, for the log."""

    def round(self, line: Line) -> float:
        """Do what is due, and return the seconds until the next round."""

    def failed(self) -> None:
        """Note that a round failed: what it wanted to do is still due."""


class Companion:
    """Runs a duty in a thread until it is told to end, or has to give up."""

    def __init__(
        self,
        duty: Duty,
        line: Line,
        *,
        worker_name: str,
        backoff: Backoff,
        on_giving_up: Callable[[str, BaseException], None],
    ) -> None:
        self.name = duty.name
        self._duty = duty
        self._line = line
        self._backoff = backoff
        self._on_giving_up = on_giving_up
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"{worker_name}-{duty.name}", daemon=True
        )

    @property
    def is_alive(self) -> bool:
        """Whether it does its duty; True also before its start and once it was let go."""
        return self._thread.ident is None or self._ending.is_set() or self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def let_go(self) -> None:
        """Let the thread end, without waiting for it."""
        self._ending.set()

    @property
    def is_running(self) -> bool:
        """Whether its thread has not ended yet."""
        return self._thread.is_alive()

    def leave_alone(self) -> None:
        """Wait no longer for the end of the thread (rule 4)."""
        self._line.cut()

    def _run(self) -> None:
        wait = 0.0
        while not self._ending.wait(wait):
            try:
                wait = self._round()
            except BaseException as exc:
                if self._died(exc):
                    self._on_giving_up(self.name, exc)
                    break
                wait = REBORN_AFTER
        self._line.close()

    def _round(self) -> float:
        try:
            wait = self._duty.round(self._line)
        except ConnectorException as exc:
            if not self._ending.is_set():
                self._backoff.warn(self._duty.undone, exc)
            self._duty.failed()
            return self._backoff.next_wait()
        self._backoff.reset()
        return wait

    def _died(self, exc: BaseException) -> bool:
        """Note a death, and return whether it was one too many."""
        now = time.monotonic()
        self._deaths.append(now)
        too_many = len(self._deaths) == DEATHS and now - self._deaths[0] < DEATHS_WITHIN
        fate = "it has died too often, and the worker ends" if too_many else "it starts again"
        logger.error("%s: %s", self._duty.undone, fate, exc_info=exc)
        self._duty.failed()
        self._line.close()
        return too_many
