"""Which worker may take others for dead, and when it is its turn to look for them.

Rules

1. A worker judges others only after ``timeout`` seconds of its own beats without a gap, counted
   from its registration. After an outage all workers have a gap, and their last signs of life are
   old: the first one back would take all others for dead.
2. A gap is more than 1.5 heartbeat intervals between two confirmed beats.
3. Of all live workers one looks for dead ones in each interval. The server's clock and the rank of
   a worker's id among the live ones say which: both come with the answer to its beat, so that
   nothing has to be agreed on. A worker that cannot judge yet leaves out its turn.
"""

from __future__ import annotations

from datetime import datetime

GAP = 1.5  # heartbeat intervals


class Judge:
    """Whether one worker may judge others. Times are seconds of one clock."""

    def __init__(self, *, timeout: float, interval: float, sent_at: float) -> None:
        self._timeout = timeout
        self._gap = GAP * interval
        self._last = sent_at  # when the last confirmed beat was sent
        self._since = sent_at  # since when there has been no gap

    def confirmed(self, sent_at: float) -> None:
        """Note a beat of this worker's own that the database has confirmed."""
        if sent_at - self._last > self._gap:
            self._since = sent_at
        self._last = sent_at

    def may_judge(self, now: float) -> bool:
        """Return whether this worker may take others for dead (rule 1)."""
        return now - self._last <= self._gap and now - self._since >= self._timeout


def has_turn(now: datetime, *, interval: float, rank: int, live: int) -> bool:
    """Return whether the worker of this rank, from 0, has its turn at this time of the server's."""
    return int(now.timestamp() // interval) % live == rank
