"""Names of tasks that a worker has met in jobs and does not know.

Rules

1. Such a job goes back in its place, and its name is left out of the worker's claims from then on:
   another worker may know it, for instance a newer one in a rolling deployment.
2. After `ASK_AGAIN` a name is asked for once more, because the job may have to be noted again.
3. Claims carry at most `MOST_NAMES`. A job of yet another name goes back with a delay.
"""

from __future__ import annotations

MOST_NAMES = 100
ASK_AGAIN = 60.0  # seconds


class UnknownTasks:
    """The names, each with the time (seconds) until which it is left out."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._told: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._until)

    def met(self, name: str, now: float) -> bool:
        """Note a name, and return whether claims will leave it out (rule 3)."""
        if name not in self._until and len(self._left_out(now)) >= MOST_NAMES:
            return False
        self._until[name] = now + ASK_AGAIN
        return True

    def is_news(self, name: str) -> bool:
        """Whether a name was never met before; the second time, it is not."""
        if name in self._told:
            return False
        if len(self._told) < 10 * MOST_NAMES:  # else there may be no end of them
            self._told.add(name)
            return True
        return False

    def left_out(self, now: float) -> list[str]:
        """Return the names that claims leave out."""
        return sorted(self._left_out(now)) if self._until else []

    def _left_out(self, now: float) -> dict[str, float]:
        if any(until <= now for until in self._until.values()):
            self._until = {name: until for name, until in self._until.items() if until > now}
        return self._until
