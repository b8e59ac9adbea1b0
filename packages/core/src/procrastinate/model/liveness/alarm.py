"""An alarm that may ring while one is busy with what it rang for.

Its user calls `begin`, does the work and calls `end` with the time of the next look. News that come
meanwhile `ring`, and `end` does not silence them. The caller reads the clock: all times are of one
clock, in seconds. One thread (or one event loop) owns an alarm.
"""

from __future__ import annotations

import math


class Alarm:
    """The time at which something is to be done; an alarm that was never set is due at once."""

    __slots__ = ("at",)

    def __init__(self, at: float = -math.inf) -> None:
        #: When it is due; infinite while nothing but `ring` makes it due.
        self.at = at

    def ring(self) -> None:
        """Make it due now: something happened."""
        self.at = -math.inf

    def set(self, at: float) -> None:
        """Make it due at a time and forget whatever rang before."""
        self.at = at

    def begin(self) -> None:
        """Note that what it is due for is being done now."""
        self.at = math.inf

    def end(self, next_at: float) -> None:
        """Note that this is done, and is due again at a time, or now if it rang meanwhile."""
        self.at = min(self.at, next_at)

    def due(self, now: float) -> bool:
        """Return whether it is time."""
        return now >= self.at
