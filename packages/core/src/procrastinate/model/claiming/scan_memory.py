"""What a plan of scans remembers: what its claim still looks at, and when it looks again."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from procrastinate.model.claiming.scan_steps import Scan
from procrastinate.model.job import Job
from procrastinate.model.values import replace

FULL_SCAN_AFTER = 8  # times as long as the last one took, which with its own time is below ten
FULL_SCAN_AT_LEAST_AFTER = 0.05  # seconds, while there is a backlog
FULL_SCAN_EVERY = 9.0  # seconds at the most, its own time included, or every other moment


class Look(enum.Enum):
    """What a claim still has to look at."""

    NOTHING = "the claim has ended"
    SCHEDULE = "it has begun: the schedule, if it is due, and then the rest"
    ABOVE = "the jobs above the level, if they are due, and then the rest"
    READY = "the level, or all"
    ALL = "the level had nothing: all"
    BEHIND = "a scan parked or left all that it read: what is behind"


@dataclass(frozen=True)
class FullScans:
    """When full scans are due, in the seconds of the caller's clock."""

    at: float = 0.0  # as often as their share of the time allows
    owed: float = math.inf  # after a short scan of the level, or promoted jobs
    earliest: float = 0.0  # from when one may be owed
    wanted: int = 0  # at once: the number of the last news that wants one, or 0

    def due(self, now: float) -> bool:
        return self.wanted > 0 or now >= min(self.at, self.owed)

    def made(self, took: float, now: float, news: int, *, short: bool) -> FullScans:
        """Return when the next one is due after one that knew the news up to this number.

        It was ``short`` if it left nothing behind: there is no backlog for the next one to hold up.
        """
        wait = min(FULL_SCAN_AFTER * took, max(FULL_SCAN_EVERY - took, took))
        at = now + (wait if short else max(wait, FULL_SCAN_AT_LEAST_AFTER))
        return FullScans(at, math.inf, now + wait, self.wanted if self.wanted > news else 0)

    def owing(self) -> FullScans:
        """Return the same with one owed."""
        return replace(self, owed=min(self.owed, self.earliest))


@dataclass(frozen=True)
class Schedule:
    """When to look at the schedule."""

    due: float = 0.0
    changed: int = 0  # the number of the last news about it
    failures: int = 0  # in a row

    def rung(self, news: int) -> Schedule:
        """Return it due at once, unless promotions fail just now."""
        return replace(self, due=self.due if self.failures else 0.0, changed=news)


@dataclass(frozen=True)
class Vain:
    """The last scan of a level that brought nothing."""

    took: float = 0.0
    until: float = 0.0  # it counts


@dataclass(frozen=True)
class Half:
    """The scan without locks that is to be made again with them."""

    scan: Scan
    jobs: tuple[Job, ...]
    took: float


# What a new plan remembers
FULL_SCAN_AT_ONCE = FullScans()
SCHEDULE_AT_ONCE = Schedule()
NOT_IN_VAIN = Vain()
