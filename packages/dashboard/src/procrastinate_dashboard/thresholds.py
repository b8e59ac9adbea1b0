"""From when on something is too late or too long, for the list of what needs a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from procrastinate.model.checks import check_seconds

LATE_AFTER = 300.0  # seconds
LONG_AFTER = 3600.0  # seconds


@dataclass(frozen=True)
class Thresholds:
    """What is usual is not known here, so it is one length of time for all queues and tasks."""

    #: The oldest ready job of a queue waits, or a job holds a lock while others wait behind locks.
    late: timedelta = timedelta(seconds=LATE_AFTER)
    #: A job runs.
    long: timedelta = timedelta(seconds=LONG_AFTER)


def checked(late_after: Any, long_after: Any) -> Thresholds:
    """Return the thresholds for numbers of seconds. Raises `InvalidOption`."""
    return Thresholds(
        timedelta(seconds=check_seconds("late_after", late_after)),
        timedelta(seconds=check_seconds("long_after", long_after)),
    )
