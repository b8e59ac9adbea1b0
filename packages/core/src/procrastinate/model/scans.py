"""What a worker scans next: the steps of a claim, decided from what the steps before it saw.

A claim asks ``next`` for a step, does it, and tells ``saw`` or ``promoted`` what came of it, until
the step is `Wait`. A plan is a value without a clock: everything that happens makes a new plan.
What is heard while a step is under way is kept, because a step carries the number of the last news
that it knew, and its end forgets only news up to that number.

Rules

1. A busy queue is scanned from a low-water mark: the priority, and the id just below the first job
   of the last claim. Full scans find what marks hide: late commits, retries, other priorities,
   jobs that got their lock. They take at most a tenth of the time, because a queue whose dead
   entries cannot be vacuumed may take seconds. A queue that is heard of and has no mark makes one
   due at once.
2. A marked scan that brings nothing is followed by a full one at once. Marks are then left out for
   `WITHOUT_MARKS` seconds, while full scans take less time than that marked one, until there is a
   backlog again. Above the marks may be thousands of parked jobs, and PostgreSQL may read them all.
3. What a short marked scan brought starts at once. The full scan that it owes follows, within the
   same share of the time.
4. Once a full scan has come back short, only the queues that are heard of from then on have jobs.
   The next full scan looks into these alone. Once in `EVERYWHERE_EVERY` seconds, and after a gap
   in what was heard, it looks everywhere: nobody announces the jobs of a claim that rolled back.
5. A scan passes over jobs that have a lock, because that makes it cheaper. If it met any, the same
   scan is made again with them, as all scans are for the next `LOCKS_EXPECTED_FOR` seconds.
6. A scan may have to leave or to park all jobs that it read, because their locks are taken. Others
   behind them may be able to start. If it brought no job, the same claim scans
   `SCANNED_IN_PASSING` jobs at a time for them. If it brought some, these start first, and the next
   claim is due at once.
7. Scheduled jobs are promoted when the next one is due, when a notification says that one was
   added for the next minute, and at least every `LOOK_AT_SCHEDULE_EVERY` seconds.
8. A claim that met jobs which another transaction was just deciding about looks again soon, and
   less and less often while that goes on.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from procrastinate.model.job import Job

FULL_SCAN_SHARE = 0.1  # of the time, while there are marks
FULL_SCAN_EVERY = (0.05, 10.0)  # seconds, at the least and at the most
MOST_HEARD = 1_000  # queues that are remembered; if more are heard of, any may have jobs
EVERYWHERE_EVERY = 1.0  # seconds, on a worker that makes full scans
WITHOUT_MARKS = 10.0  # seconds
LOOK_AT_SCHEDULE_EVERY = 30.0  # seconds; deferring announces what is due within 60
LOOK_AT_UNDECIDED_AFTER = 0.02  # seconds, doubled each time
LOOK_AT_UNDECIDED_EVERY = 1.0  # seconds: a user may keep such a transaction open
SCANNED_IN_PASSING = 500  # jobs
LOCKS_EXPECTED_FOR = 1.0  # seconds after a job with a lock was met
PROMOTED_AT_ONCE = 1_000  # jobs


@dataclass(frozen=True, slots=True)
class Mark:
    """A low-water mark of one queue: jobs of ``priority`` with ids above ``low`` are next."""

    priority: int
    low: int


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


@dataclass(frozen=True, slots=True)
class Scan:
    """Claim up to ``limit`` ready jobs: those above marks, or all of some queues.

    A full scan that looks everywhere comes without queues: who makes it fills them in.
    """

    limit: int
    marks: Mapping[str, Mark] | None = None
    queues: tuple[str, ...] = ()
    everywhere: bool = False
    with_locks: bool = False
    scanned: int = 0
    news: int = 0


@dataclass(frozen=True, slots=True)
class Promote:
    """Make scheduled jobs ready whose time has come."""

    news: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """End the claim; the next look is due in so many seconds, or when something is heard."""

    seconds: float


class Look(enum.Enum):
    """What a claim still has to look at."""

    NOTHING = "the claim has ended"
    SCHEDULE = "it has begun: the schedule, if it is due, and then the rest"
    READY = "one scan, from the marks or full"
    LOCKS = "its scan passed over jobs with locks: the same again, with them"
    FULL = "its marked scan brought nothing: a full one"
    BEHIND = "its scan parked or left all that it read: what is behind"


@dataclass(frozen=True, slots=True)
class FullScans:
    """When full scans are due, in the seconds of the caller's clock."""

    at: float = 0.0  # as often as their share of the time allows
    owed: float = math.inf  # after a short marked scan
    earliest: float = 0.0  # from when a short marked scan may owe one
    wanted: int = 0  # at once: the number of the last news that wants one, or 0

    def due(self, now: float) -> bool:
        return self.wanted > 0 or now >= min(self.at, self.owed)

    def made(self, took: float, now: float, news: int) -> FullScans:
        """Return when the next one is due after one that knew the news up to this number."""
        least, most = FULL_SCAN_EVERY
        wait = min(took / FULL_SCAN_SHARE, most)
        wanted = self.wanted if self.wanted > news else 0
        return FullScans(now + max(wait, least), math.inf, now + wait, wanted)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to look at the schedule."""

    due: float = 0.0
    changed: int = 0  # the number of the last news about it


@dataclass(frozen=True, slots=True)
class Vain:
    """The last marked scan that brought nothing."""

    took: float = 0.0
    until: float = 0.0  # it counts


@dataclass(frozen=True, slots=True)
class Half:
    """The scan without locks that is to be made again with them."""

    scan: Scan
    jobs: tuple[Job, ...]
    took: float


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """What is known of the queues, and the step that follows from it."""

    look: Look = Look.NOTHING
    half: Half | None = None
    marks: Mapping[str, Mark] = field(default_factory=dict)
    full: FullScans = FullScans()
    vain: Vain = Vain()
    only_in: Mapping[str, int] | None = None  # queues with the news of each; None: any has jobs
    everywhere_due: float = 0.0
    locks_until: float = 0.0
    schedule: Schedule = Schedule()
    undecided: int = 0  # claims in a row that met such jobs
    more_behind: bool = False
    news: int = 0  # counts what was heard
    gap: int = 0  # the number of the last gap in what was heard

    # What was heard

    def heard_of(self, queue: str) -> ScanPlan:
        """Note that a job of a queue became ready."""
        news = self.news + 1
        only_in = self.only_in
        if only_in is not None:  # any number of names may be heard: anybody can notify
            only_in = {**only_in, queue: news} if len(only_in) < MOST_HEARD else None
        full = self.full if queue in self.marks else replace(self.full, wanted=news)
        return replace(self, news=news, only_in=only_in, full=full)

    def schedule_changed(self) -> ScanPlan:
        """Note that a job was scheduled for the near future."""
        return replace(self, news=self.news + 1, schedule=Schedule(0.0, self.news + 1))

    def gap_in_what_was_heard(self) -> ScanPlan:
        """Let the next claim look at everything, schedule included."""
        news = self.news + 1
        full = replace(self.full, wanted=news)
        return replace(
            self, news=news, gap=news, full=full, schedule=Schedule(0.0, news), only_in=None
        )

    # The steps of a claim

    def begun(self) -> ScanPlan:
        """Begin a claim."""
        return replace(self, look=Look.SCHEDULE, half=None)

    def next(self, now: float, room: int) -> Scan | Promote | Wait:
        """Return the next step of a claim that has room for so many more jobs."""
        if self.look is Look.NOTHING or room == 0:
            return Wait(self.seconds_to_next_look(now))
        if self.look is Look.SCHEDULE and now >= self.schedule.due:
            return Promote(self.news)
        if self.half is not None:
            return replace(self.half.scan, limit=room, with_locks=True)
        with_locks = now < self.locks_until
        from_marks = self.look in (Look.SCHEDULE, Look.READY) and self.marks
        if from_marks and not self.full.due(now):
            return Scan(room, self.marks, with_locks=with_locks, news=self.news)
        scanned = SCANNED_IN_PASSING if self.look is Look.BEHIND else 0
        where = () if now >= self.everywhere_due else tuple(sorted(self.only_in or ()))
        return Scan(
            room,
            queues=where,
            everywhere=not where,
            with_locks=with_locks,
            scanned=scanned,
            news=self.news,
        )

    def seconds_to_next_look(self, now: float) -> float:
        """Return how long to wait at the most, if nothing is heard."""
        if self.more_behind:
            return 0.0
        next_look = max(0.0, min(self.schedule.due, self.full.owed) - now)
        if not self.undecided:
            return next_look
        doubled = LOOK_AT_UNDECIDED_AFTER * 2.0 ** min(self.undecided - 1, 10)
        return min(next_look, doubled, LOOK_AT_UNDECIDED_EVERY)

    # What came of them

    def promoted(
        self, step: Promote, count: int, seconds_to_next: float | None, now: float
    ) -> ScanPlan:
        """Note how many jobs were promoted, and when the next one is due (None: there is none)."""
        full = replace(self.full, at=0.0) if count else self.full
        if count == PROMOTED_AT_ONCE:
            return replace(self, full=full)  # there may be more: the schedule stays due
        if self.schedule.changed > step.news:
            return replace(self, full=full, look=Look.READY)
        wait = LOOK_AT_SCHEDULE_EVERY
        if seconds_to_next is not None:
            wait = min(wait, seconds_to_next)
        schedule = replace(self.schedule, due=now + wait)
        return replace(self, full=full, look=Look.READY, schedule=schedule)

    def saw(self, scan: Scan, found: Found, took: float, now: float) -> ScanPlan:
        """Note what a scan brought, and how many seconds it took."""
        if not scan.with_locks and found.left:
            half = Half(scan, tuple(found.jobs), took)
            return replace(self, look=Look.LOCKS, half=half, locks_until=now + LOCKS_EXPECTED_FOR)
        jobs = list(found.jobs)
        if self.half is not None:
            jobs = sorted([*self.half.jobs, *jobs], key=_place)
            took += self.half.took
        whole = replace(self, half=None)
        if scan.marks is not None:
            return whole._saw_marked(scan, scan.marks, found, jobs, took, now)
        return whole._saw_full(scan, found, jobs, took, now)

    def _saw_marked(
        self,
        scan: Scan,
        above: Mapping[str, Mark],
        found: Found,
        jobs: list[Job],
        took: float,
        now: float,
    ) -> ScanPlan:
        if not jobs:
            return replace(self, look=Look.FULL, vain=Vain(took, now + WITHOUT_MARKS))
        marks = {**self.marks, **_marks_of(job for job in jobs if _is_above(job, above))}
        full = self.full
        if len(found.jobs) < scan.limit:
            full = replace(full, owed=full.earliest)
        return replace(self, marks=marks, full=full)._ended(scan, found, jobs)

    def _saw_full(
        self, scan: Scan, found: Found, jobs: list[Job], took: float, now: float
    ) -> ScanPlan:
        filled = len(found.jobs) == scan.limit
        plan = replace(
            self,
            marks=_marks_of(jobs),
            full=self.full.made(took, now, scan.news),
            only_in=self._only_in_after(scan, more=filled or bool(found.parked or found.undecided)),
        )
        if scan.everywhere:
            plan = replace(plan, everywhere_due=now - took + EVERYWHERE_EVERY)
        if filled:
            plan = replace(plan, vain=Vain())
        elif took < self.vain.took and now < self.vain.until:
            plan = replace(plan, marks={})
        stuck = found.undecided >= scan.limit and now < self.locks_until and not scan.scanned
        if not jobs and (found.parked or stuck):
            return replace(plan, look=Look.BEHIND)
        return plan._ended(scan, found, jobs)

    def _only_in_after(self, scan: Scan, *, more: bool) -> Mapping[str, int] | None:
        """Return which queues have jobs after a full scan, or None if any of them may."""
        if self.gap > scan.news or (more and scan.everywhere):
            return None
        heard = self.only_in or {}
        scanned = scan.queues if more else ()
        return {queue: n for queue, n in heard.items() if n > scan.news or queue in scanned}

    def _ended(self, scan: Scan, found: Found, jobs: list[Job]) -> ScanPlan:
        undecided = 0 if jobs or not found.undecided else self.undecided
        return replace(
            self,
            look=Look.NOTHING,
            undecided=undecided + (found.undecided > 0),
            more_behind=_may_hide_more(scan, found, jobs),
        )


def _may_hide_more(scan: Scan, found: Found, jobs: list[Job]) -> bool:
    """Whether jobs that a claim read, but did not get, stood in the way of others behind them."""
    got = len(found.jobs)
    if got == scan.limit:
        return False  # there is no room for more
    return found.parked > 0 or (bool(jobs) and got + found.undecided >= scan.limit)


def _is_above(job: Job, marks: Mapping[str, Mark]) -> bool:
    """Whether a job was found by a scan from the marks, and not as the next of its lock."""
    mark = marks[job.queue]
    return job.priority == mark.priority and job.id > mark.low


def _marks_of(jobs: Iterable[Job]) -> dict[str, Mark]:
    """Return the marks below the first job of each queue in a claim, which is in order."""
    marks: dict[str, Mark] = {}
    for job in jobs:
        if job.queue not in marks:
            marks[job.queue] = Mark(job.priority, job.id - 1)
    return marks


def _place(job: Job) -> tuple[int, int]:
    return -job.priority, job.id
