"""The level: the one priority that a worker works on in all its queues, and from where.

Dead index entries gather at the end of a queue that is read first. A scan of the level starts above
them, at a low-water mark. Marks lie below the first job of a claim, not behind the last one, so
that jobs of the claim that go back to the queue are found again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from procrastinate.model.job import Job
from procrastinate.model.values import replace

#: Below each priority, and each id but the least two, which full scans find. (PostgreSQL reads the
#: least number, with a cast behind it, as one out of range.)
BELOW_ALL = -(2**63) + 1


@dataclass(frozen=True)
class Level:
    """A priority, the queues that may have jobs of it, and the marks above which these stand."""

    priority: int
    queues: tuple[str, ...]
    floor: int = BELOW_ALL  # the mark of a queue that has none of its own and is not fresh
    lows: Mapping[str, int] = field(default_factory=dict)  # of queues of which jobs were claimed
    fresh: Mapping[str, int] = field(default_factory=dict)  # heard of, with the number of the news
    under: Level | None = None  # which goes on when this one has no more jobs

    def low(self, queue: str) -> int:
        """Return the id above which a queue is scanned."""
        return self.lows.get(queue, BELOW_ALL if queue in self.fresh else self.floor)

    def heard_of(self, queue: str, news: int) -> Level:
        """Return the level after a job of a queue became ready."""
        fresh = self.fresh if queue in self.lows else {**self.fresh, queue: news}
        return replace(self, fresh=fresh, under=self.under and self.under.heard_of(queue, news))

    def claimed(self, jobs: Sequence[Job], news: int) -> Level:
        """Return the level after a scan of it that knew the news up to this number."""
        marks = {queue: self.low(queue) for queue in {job.queue for job in jobs}}
        mine = [  # and not the next of a lock
            job for job in jobs if job.priority == self.priority and job.id > marks[job.queue]
        ]
        fresh = {queue: n for queue, n in self.fresh.items() if n > news}
        return replace(self, lows={**self.lows, **_lows_of(mine)}, fresh=fresh)

    def lowered(self, jobs: Sequence[Job]) -> Level:
        """Return the level after jobs went back to their places in it, or in those under it."""
        lows = dict(self.lows)
        for job in jobs:
            if job.priority == self.priority:
                lows[job.queue] = min(lows.get(job.queue, self.low(job.queue)), _below(job))
        return replace(self, lows=lows, under=self.under and self.under.lowered(jobs))


def level_of(jobs: Sequence[Job], queues: Iterable[str], *, under: Level | None = None) -> Level:
    """Return the level that a claim has come to, which brought the first jobs of these queues."""
    priority = jobs[-1].priority
    reached = [job for job in jobs if job.priority == priority]
    names = {*queues, *(job.queue for job in jobs)}
    return Level(priority, tuple(sorted(names)), _below(reached[0]), _lows_of(reached), under=under)


def _lows_of(jobs: Iterable[Job]) -> dict[str, int]:
    """Return the marks below the first job of each queue in a claim, which is in order."""
    lows: dict[str, int] = {}
    for job in jobs:
        if job.queue not in lows:
            lows[job.queue] = _below(job)
    return lows


def _below(job: Job) -> int:
    return max(job.id - 1, BELOW_ALL)
