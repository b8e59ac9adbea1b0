"""Whether a worker may still trust that its jobs are its own.

Other workers take its jobs away when its sign of life is older than ``timeout``. They see that sign
in the database, so what counts is the last beat that the database *confirmed*, and its age is
counted from when it was *sent*: the database cannot have seen it earlier.

Rules

1. Trust holds while that age is within the window: the timeout less a margin, so that a job that
   is claimed now starts before anybody can take it away.
2. A moment counts as "since then" only if trust held without a break: a process that was frozen
   for longer than the window has lost what it claimed before, even if a new beat is confirmed.
3. From the age of ``timeout`` on it is doubtful whether running jobs are still this worker's.

Times are seconds of one clock that the caller reads. One thread calls `confirmed`; any may ask.
"""

from __future__ import annotations

import math

STALE = 2.0  # seconds of the margin, which is a tenth of the timeout if that is more ...
MARGIN_SHARE = 0.1
LARGEST_MARGIN_SHARE = 0.25  # ... but never more than a quarter: short timeouts need a window too


def window_of(timeout: float) -> float:
    """Return for how many seconds a confirmed beat is trusted."""
    return timeout - min(max(STALE, MARGIN_SHARE * timeout), LARGEST_MARGIN_SHARE * timeout)


class Trust:
    """What a worker's last confirmed sign of life is worth; the first one is its registration."""

    def __init__(self, *, timeout: float, sent_at: float) -> None:
        self.timeout = timeout
        self.window = window_of(timeout)
        self._confirmed = sent_at  # when the last confirmed beat was sent
        self.doubtful_from = sent_at + timeout  # unless another beat is confirmed until then
        self._since = sent_at  # since when trust holds without a break

    def confirmed(self, sent_at: float, now: float) -> None:
        """Note that the database has confirmed a beat that was sent then."""
        if not self.holds(now):
            # Before `_confirmed`: another thread that asks in between still hears "no".
            self._since = now
        self._confirmed = max(self._confirmed, sent_at)
        self.doubtful_from = self._confirmed + self.timeout

    def holds(self, now: float) -> bool:
        """Return whether the worker may claim jobs, and start those that it has claimed."""
        return now - self._confirmed < self.window

    def holds_until(self, moment: float, now: float) -> float:
        """Return until when trust holds, if it has held without a break from that moment until now.

        Else this is minus infinity. Trust holds for longer if another beat is confirmed meanwhile.
        """
        if self.holds(now) and self._since <= moment:
            return self._confirmed + self.window
        return -math.inf

    def doubtful(self, now: float) -> bool:
        """Return whether other workers may have taken over the jobs that run here."""
        return now >= self.doubtful_from
