"""How many attempts ended in a minute, how long they took, and how long their jobs had waited.

Rules

1. Durations are kept as counts for buckets, the bounds of which are powers of two. Bucket ``i``,
   from 0 on, counts what took less than ``bound(i)`` = 2 ** (i - 10) seconds, and not less than the
   bound before it: 0.98 ms, 1.95 ms, ..., 18.2 hours. The last bucket counts all that took longer.
   Buckets are added up as they are, over workers, minutes, queues and tasks.
2. Attempts are counted one by one. Of many that are written together, only some are measured, each
   for several: to measure all would cost more than the rest of this.
3. The wait of a job is what went before its first claim: from when it was due, or deferred if that
   was later, to the claim, both by the server's clock. A later claim says nothing of how long the
   job waited, because it is not noted when it came back.
4. Beside each pair of a queue and a task, what is written has the sums of each queue, of each task
   and of all, under empty names. So a plot reads one row for each minute. What a worker has not
   counted apart, because there were too many pairs, is in the sum of all, and only there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import frexp
from operator import add

from procrastinate.model.job import Job, Status

BUCKETS = 28
FIRST_EXPONENT = -10  # of the first bucket's bound, in seconds
_SHORTEST = 2.0**FIRST_EXPONENT
MINUTE, HOUR = 60, 3600  # seconds that a row may be about
MOST_KINDS = 200  # pairs of queue and task that are counted apart, for each worker and minute
ALL = ""  # the queue, or the task, of a sum over all of them: no name is empty
MEASURED = 10  # attempts of those that are written together

#: The key of a tally: queue and task; empty names of sums.
Kind = tuple[str, str]


def bound(bucket: int) -> float:
    """Return the seconds below which a bucket counts; infinite for the last one."""
    return 2.0 ** (bucket + FIRST_EXPONENT) if bucket < BUCKETS - 1 else float("inf")


def bucket_of(seconds: float) -> int:
    """Return the bucket that counts a duration."""
    if seconds < _SHORTEST:
        return 0
    return min(frexp(seconds)[1] - FIRST_EXPONENT, BUCKETS - 1)


@dataclass(frozen=True, slots=True)
class Durations:
    """How long some attempts took, or some jobs waited. Seconds.

    ``count`` is how many, ``sum`` what they took together, and ``buckets`` how many there were of
    each length: see ``procrastinate.model.monitoring.minutes``.
    """

    count: int
    sum: float
    buckets: tuple[int, ...] = field(repr=False)

    @property
    def mean(self) -> float | None:
        """The mean duration; None if there is none."""
        return self.sum / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """Return the duration that the part ``q`` of all stayed below; None if there is none.

        ``q`` is between 0 and 1. What is returned lies in the right bucket, so it is wrong by a
        factor of two at most. Above 18 hours it is 18 hours.
        """
        rank = q * self.count
        below = 0
        for bucket, count in enumerate(self.buckets):
            if count and below + count >= rank:
                return _inside(bucket, (rank - below) / count)
            below += count
        return None


def _inside(bucket: int, share: float) -> float:
    """Return a duration inside of a bucket, at a share of its width."""
    lower = bound(bucket - 1) if bucket else 0.0
    upper = bound(bucket) if bucket < BUCKETS - 1 else lower
    return lower + (upper - lower) * share


@dataclass(frozen=True, slots=True)
class Throughput:
    """What ended at workers in a length of time that begins at ``begins_at`` (aware, UTC).

    It is ``seconds`` long. ``succeeded``, ``failed``, ``cancelled`` and ``aborted`` are jobs that
    ended so at a worker, ``retried`` attempts that failed and are tried again. ``run`` is how long
    attempts took, ``waited`` how long jobs had waited for their first claim since they were due.
    ``queue`` and ``task`` are None if all of them are summed up, and empty for those that were not
    counted apart because there were too many.
    """

    begins_at: datetime
    seconds: int
    queue: str | None
    task: str | None
    succeeded: int
    failed: int
    cancelled: int
    aborted: int
    retried: int
    run: Durations
    waited: Durations

    @property
    def ended(self) -> int:
        """The number of jobs that ended."""
        return self.succeeded + self.failed + self.cancelled + self.aborted


class Spread:
    """Durations while they are counted."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * BUCKETS

    def add(self, seconds: float, count: int = 1) -> None:
        """Count some that each took as long as this one."""
        self.seconds += seconds * count
        self.buckets[bucket_of(seconds)] += count

    def add_all(self, other: Spread) -> None:
        """Count what another one has counted."""
        self.seconds += other.seconds
        self.buckets = list(map(add, self.buckets, other.buckets))


class Tally:
    """What ended of one kind in one minute."""

    __slots__ = ("counts", "run", "waited")

    def __init__(self) -> None:
        #: Jobs by the status that they got. Of ``todo``, attempts that failed.
        self.counts = dict.fromkeys(Status, 0)
        self.run = Spread()
        self.waited = Spread()

    def add_all(self, other: Tally) -> None:
        """Count what another one has counted."""
        for status, count in other.counts.items():
            self.counts[status] += count
        self.run.add_all(other.run)
        self.waited.add_all(other.waited)

    def measure(self, job: Job, duration: float | None, count: int = 1) -> None:
        """Count how long an attempt took and its job waited, for some that were like it."""
        if duration is not None:
            self.run.add(duration, count)
            waited = job.waited
            if waited is not None:
                self.waited.add(waited, count)


def weights(count: int) -> Iterable[tuple[int, int]]:
    """Return which of so many attempts to measure, and for how many each (rule 2)."""
    step = -(-count // MEASURED)
    return ((place, min(step, count - place)) for place in range(0, count, step))


class Tallies:
    """What a worker has counted, by minute, and in each by queue and task."""

    def __init__(self) -> None:
        self.by_minute: dict[int, dict[Kind, Tally]] = {}

    def tally(self, minute: int, kind: Kind) -> Tally:
        """Return where to count what ended of a kind in a minute (since any epoch)."""
        tallies = self.by_minute.setdefault(minute, {})
        found = tallies.get(kind)
        if found is None:
            if len(tallies) >= MOST_KINDS:
                kind = (ALL, ALL)
            found = tallies.setdefault(kind, Tally())
        return found

    def first(self) -> int | None:
        """Return the first minute in which anything was counted."""
        return min(self.by_minute, default=None)

    def put_back(self, minute: int, tallies: dict[Kind, Tally]) -> None:
        """Count again what was taken away."""
        for kind, tally in tallies.items():
            self.tally(minute, kind).add_all(tally)

    def keep_last(self, most: int) -> None:
        """Keep as many minutes as this: what was counted in earlier ones belongs to the first."""
        minutes = sorted(self.by_minute)
        for minute in minutes[:-most]:
            self.put_back(minutes[-most], self.by_minute.pop(minute))


def with_sums(tallies: Mapping[Kind, Tally]) -> dict[Kind, Tally]:
    """Return what a worker has counted in a minute, with all sums (rule 4)."""
    sums: dict[Kind, Tally] = {}
    for (queue, task), tally in tallies.items():
        for kind in {(queue, task), (queue, ALL), (ALL, task), (ALL, ALL)}:
            sums.setdefault(kind, Tally()).add_all(tally)
    return sums


def durations(seconds: float | None, buckets: Sequence[int | None] | None) -> Durations:
    """Return durations as a row describes them, whatever was made of it by hand."""
    counts = tuple(max(0, count or 0) for count in buckets or ())[:BUCKETS]
    counts += (0,) * (BUCKETS - len(counts))
    return Durations(sum(counts), seconds or 0.0, counts)
