"""When a worker that has ended by itself is started again.

Rules

1. `LIMIT` starts within `WITHIN` seconds are enough: what fails more often needs a person.
2. The pause before a start doubles with each failure within that time.
3. A start that did not reach the database is tried again and counts only once, because an outage
   says nothing about the worker.
"""

from __future__ import annotations

LIMIT = 5  # restarts
WITHIN = 3600.0  # seconds
FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 60.0  # seconds


class Restarts:
    """Decides about one worker. Times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._counted: list[float] = []
        self._unanswered = 0

    def after_failure(self, now: float, *, unreachable: bool = False) -> float | None:
        """Return the seconds until the next start, or None if there is to be none.

        ``unreachable`` says that the last start failed because the database was away.
        """
        if unreachable:
            self._unanswered += 1
            return _pause(self._unanswered)
        self._counted = [moment for moment in self._counted if moment > now - WITHIN]
        if len(self._counted) >= LIMIT:
            return None
        self._counted.append(now)
        return _pause(len(self._counted))

    def started(self) -> None:
        """Note that a start has reached the database."""
        self._unanswered = 0


def _pause(failures: int) -> float:
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (min(failures, 10) - 1))
