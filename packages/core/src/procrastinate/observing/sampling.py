"""How many lines the log has about jobs that end alike: a limit for each second, and a sum.

Rules

1. A second begins with the first line after the one before it has ended.
2. In one second, `SUCCESSES` are said one by one, whatever their tasks are, and of failures with
   the same task, kind and consequence the first `FAILURES`. What comes after is counted.
3. At the end of the second, each count becomes one line. Nothing is left out of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

SUCCESSES = 100  # said one by one in a second
FAILURES = 19  # of one kind
LONG = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Sum(Generic[K]):
    """How often something happened that was not said one by one, and within how many seconds."""

    key: K
    count: int
    seconds: float


class Sampler(Generic[K]):
    """Decides what is said one by one, and sums up the rest. ``now`` is monotonic, in seconds."""

    def __init__(self, limit: int, *, per_key: bool) -> None:
        self._limit = limit
        self._per_key = per_key  # else the limit is one for all
        self._began = 0.0
        self._said: Counter[K | None] = Counter()
        self._counted: Counter[K] = Counter()

    def take(self, keys: Sequence[K], now: float) -> int:
        """Return how many of these, the first ones, are to be said one by one; count the others.

        Call `due` before it. With a limit for each key, all keys are the same.
        """
        if not self._said and not self._counted:
            self._began = now
        place = keys[0] if self._per_key and keys else None
        said = max(0, min(len(keys), self._limit - self._said[place]))
        self._said[place] += said
        if said < len(keys):
            self._counted.update(keys[said:])
        return said

    def due(self, now: float, *, at_once: bool = False) -> list[Sum[K]]:
        """Return the sums of a second that is over, or also of one that is not; else nothing."""
        if not self._said and not self._counted:
            return []
        seconds = now - self._began
        if seconds < LONG and not at_once:
            return []
        sums = [Sum(key, count, seconds) for key, count in self._counted.items()]
        self._said.clear()
        self._counted.clear()
        return sums
