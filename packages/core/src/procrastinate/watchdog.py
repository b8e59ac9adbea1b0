"""Ending waits that last too long, from a thread that waits for nothing else.

The thread that waits for the database cannot end its own wait. The watchdog can: it shuts the
socket down. It writes no log and takes no connection, so that nothing can make it late.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BITE_AGAIN_AFTER = 1.0  # seconds: there may have been no connection yet
STOP_MAY_TAKE = 1.0  # seconds until a thread that does not end is left to itself


class Watchdog:
    """Calls ``bite`` for each watched block that lasts too long, until the block ends."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._watched: set[_Watched] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"{name}-watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; no longer than `STOP_MAY_TAKE`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(STOP_MAY_TAKE)

    @property
    def is_alive(self) -> bool:
        """Whether the thread watches."""
        return self._thread.is_alive()

    @contextmanager
    def watching(self, seconds: float, bite: Callable[[], object]) -> Iterator[None]:
        """Watch a block. ``bite`` is never called after its end, and has to return at once."""
        watched = _Watched(time.monotonic() + seconds, bite)
        with self._changed:
            self._watched.add(watched)
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._watched.discard(watched)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._watch()
            except BaseException:  # whatever it is, for instance no memory: the watch goes on
                continue

    def _watch(self) -> None:
        with self._changed:
            now = time.monotonic()
            for watched in self._watched:
                if watched.due <= now:
                    watched.due = now + BITE_AGAIN_AFTER
                    watched.bite()
            due = min((each.due for each in self._watched), default=math.inf)
            if not self._stopping:
                self._changed.wait(None if due == math.inf else max(0.0, due - now))


class _Watched:
    __slots__ = ("bite", "due")

    def __init__(self, due: float, bite: Callable[[], object]) -> None:
        self.due = due
        self.bite = bite
