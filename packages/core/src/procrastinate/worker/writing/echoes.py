"""Notifications that a worker will hear of its own writes, and need not look for again.

When an ending gives a lock up, the next jobs of its line become ready, and the database notifies
all workers of their queues. The worker that wrote it looks for these jobs at once. A second look,
because it hears of them too, would find nothing and hold up the next claim.

Rules

1. A notification is expected before the transaction that sends it commits. So it cannot be heard
   before it is expected.
2. After a failed write, or a gap in what was heard, nothing is expected: a notification that never
   comes must not swallow another one.
3. If another worker's notification is taken for an echo, the echo itself is still to come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Echoes:
    """Counts what will be heard, by what it says."""

    def __init__(self) -> None:
        self._expected: Counter[str] = Counter()

    def expect(self, news: Iterable[str]) -> None:
        """Note that a transaction will notify of each of these once (rule 1)."""
        self._expected.update(news)

    def forget(self) -> None:
        """Expect nothing more (rule 2)."""
        self._expected.clear()

    def take(self, payload: str) -> bool:
        """Return whether what was heard was expected; it is not any more."""
        if self._expected[payload] > 0:
            self._expected[payload] -= 1
            return True
        del self._expected[payload]  # which reading it has made
        return False
