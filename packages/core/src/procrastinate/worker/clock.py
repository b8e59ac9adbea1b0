"""The clock for the age of a worker's signs of life."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


#: Returns the seconds since the machine started, if the system can tell.
#:
#: Unlike the monotonic clock, this one counts the time in which the machine was suspended: the
#: database's time went on meanwhile. Elsewhere it is the monotonic clock.
since_boot: Callable[[], float] = (
    time.monotonic if _BOOTTIME is None else functools.partial(time.clock_gettime, _BOOTTIME)
)
