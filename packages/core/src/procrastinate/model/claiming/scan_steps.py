"""The steps of a claim, and what came of them: see `procrastinate.model.claiming.scans`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from procrastinate.model.claiming.levels import BELOW_ALL
from procrastinate.model.job import Job
from procrastinate.model.queues import Pauses
from procrastinate.model.values import replace


class Found(Protocol):
    """What a scan brought, and what it saw on the way: see `procrastinate.storage.claim.Claim`."""

    @property
    def jobs(self) -> Sequence[Job]:
        """The claimed jobs, in order."""

    @property
    def parked(self) -> int:
        """How many jobs were put aside because of their locks."""

    @property
    def left(self) -> int:
        """How many jobs a scan without locks left, because they have one."""

    @property
    def undecided(self) -> int:
        """How many jobs another transaction was just deciding about."""

    @property
    def none_ready(self) -> bool:
        """Whether a scan of the level showed that no job is ready in its queues, wherever."""


class Kind(enum.Enum):
    """Which of the ready jobs a scan is about."""

    FULL = "all"
    ABOVE = "those of a higher priority than the level's"
    LEVEL = "those of the level's priority above the marks"


@dataclass(frozen=True)
class Scan:
    """Claim up to ``limit`` ready jobs of some queues.

    A scan that looks everywhere comes without queues: they are filled in before it is made. Each
    queue of a scan of the level has its mark in ``lows``, in the same order. A ``wary`` scan
    expects to meet jobs with locks that it must not take. ``scanned`` is how many jobs to read at
    the least, so that more are parked at a time.
    """

    kind: Kind
    limit: int
    queues: tuple[str, ...] = ()
    everywhere: bool = False
    priority: int = BELOW_ALL
    lows: tuple[int, ...] = ()
    with_locks: bool = False
    wary: bool = False
    scanned: int = 0
    news: int = 0

    def without(self, paused: Pauses) -> Scan:
        """Return the same scan, but not of queues that are paused."""
        if not any(map(paused.has, self.queues)):
            return self
        kept = [place for place, queue in enumerate(self.queues) if not paused.has(queue)]
        lows = tuple(self.lows[place] for place in kept) if self.lows else ()
        return replace(self, queues=tuple(self.queues[place] for place in kept), lows=lows)


@dataclass(frozen=True, slots=True)
class Promote:
    """Make a batch of scheduled jobs ready whose time has come."""

    news: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """End the claim; the next look is due in ``seconds``, or when something is heard."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Came:
    """What came of a scan, its half without locks included."""

    scan: Scan
    found: Found
    jobs: list[Job]
    took: float
    now: float

    @property
    def filled(self) -> bool:
        """Whether it brought as many jobs as there was room for."""
        return len(self.found.jobs) == self.scan.limit

    @property
    def hides_more(self) -> bool:
        """Whether jobs that it read, but did not get, stood in the way of others behind them."""
        got = len(self.found.jobs)
        if got == self.scan.limit:
            return False  # there is no room for more
        in_the_way = got + self.found.undecided >= self.scan.limit
        return self.found.parked > 0 or (bool(self.jobs) and in_the_way)


def left_none(scan: Scan, found: Found) -> bool:
    """Whether a scan shows that there is no ready job behind those that it brought.

    A scan of one level shows nothing of the others, nor of what is below its marks.
    """
    came_short = len(found.jobs) < scan.limit
    return scan.kind is Kind.FULL and came_short and not (found.parked or found.undecided)
