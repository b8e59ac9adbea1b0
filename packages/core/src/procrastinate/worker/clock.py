"""The clock for the age of a worker's signs of life."""

from __future__ import annotations

import time

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def since_boot() -> float:
    """Return the seconds since the machine started, if the system can tell.

    Unlike the monotonic clock, this one counts the time in which the machine was suspended: the
    database's time went on meanwhile. Elsewhere it is the monotonic clock.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
