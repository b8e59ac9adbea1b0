"""Whether the machine itself stood still: then no worker can be blamed for being late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from chaos.records import Effect, Trouble

BEAT = 0.2  # seconds
STANDSTILL = 1.5  # seconds: a beat that comes so late shows that the machine stood still


class Pulse:
    """A thread that does nothing but look at the clock."""

    def __init__(self, note: Callable[[Trouble], None]) -> None:
        self._note = note
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._over.wait(BEAT):
            now = time.monotonic()
            if now - last > STANDSTILL:
                ended = datetime.now(UTC)
                began = ended - timedelta(seconds=now - last)
                still = frozenset({Effect.STILL})
                self._note(Trouble("the machine stood still", "", began, ended, still))
            last = now
