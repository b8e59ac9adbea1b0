"""Waiting longer and longer while the database is away, and saying so once."""

from __future__ import annotations

import random

from procrastinate.worker.log import logger

FIRST = 0.1  # seconds
LONGEST = 5.0  # seconds


def reason_of(exc: BaseException) -> str:
    """Return why a call failed, for the log. A call that was not answered says nothing itself."""
    return str(exc) or "the database does not answer"


class Backoff:
    """The waits between tries in seconds: doubled from first to longest, and spread by half."""

    def __init__(self, first: float = FIRST, longest: float = LONGEST) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

    @property
    def failing(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def warn(self, undone: str, exc: BaseException) -> None:
        """Log what is not done and why, unless the last try failed as well."""
        if not self.failing:
            logger.warning("%s: %s", undone, reason_of(exc))

    def next_wait(self) -> float:
        """Note a failure and return the seconds to wait before the next try."""
        wait: float = min(self._longest, self._first * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return wait * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Note a success."""
        self._failures = 0
