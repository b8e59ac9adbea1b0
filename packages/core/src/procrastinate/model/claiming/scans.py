"""What a worker scans next: the steps of a claim, decided from what the steps before it saw.

A claim asks ``next`` for a step, does it, and tells ``saw`` or ``promoted`` what came of it, until
the step is `Wait`. A plan is a value without a clock: everything that happens makes a new plan.
What is heard while a step is under way is kept, because a step carries the number of the last news
that it knew, and its end forgets only news up to that number.

Rules

1. All queues are worked on at one priority, the level. A scan of the level takes the first jobs of
   all its queues together, of each queue those above its low-water mark. The mark lies just below
   the first job of the last claim from that queue. A queue that had none since the last full scan
   has the mark of the level, unless it was heard of: then it is scanned from the level's beginning.
2. Full scans find what marks hide: late commits, retries, promoted jobs, and jobs that got their
   lock. The next one is due when ten times as long as the last one took has passed, counted so that
   its own time is included: within 0.1 s if it takes up to 10 ms, and within 10 s at the most.
   A queue whose dead entries cannot be vacuumed may take seconds.
3. Jobs above the level are looked for every `ABOVE_EVERY` seconds, or every other moment if that
   takes longer. The scan reads none of the level's own entries. If it fills the claim, theirs is
   the new level, and the old one goes on when that comes back short. Else the old one goes on in
   the same claim.
4. A scan of the level that brings nothing is followed by a full one at once. The level is then
   left out for `WITHOUT_LEVEL` seconds, while full scans take less than `WORTH_A_TRY` times as long
   as that scan, until there is a backlog again. Above marks may be thousands of parked jobs that
   PostgreSQL reads as well, and the next jobs of freed locks stand below them.
5. What a short scan of the level brought starts at once. The full scan that it owes follows, within
   the same share of the time. So does the one that promoted jobs owe. While there
   is no backlog, a full scan takes the place of a scan of the level as soon as that share allows:
   else a job that comes alone would take both.
6. Once a full scan has come back short, only the queues that are heard of from then on have jobs.
   The next scans look into these alone. Once in `EVERYWHERE_EVERY` seconds, and after a gap
   in what was heard, a full scan looks everywhere: the jobs of a claim that rolled back are
   not announced.
7. A scan takes no job with a lock, because that makes it cheaper. If it met any, the same
   scan is made again with them, as all scans are for the next `LOCKS_EXPECTED_FOR` seconds. For
   `WARY_FOR` seconds after these, scans look for them before they lock any job.
8. A scan may have to leave or to park all jobs that it read, because their locks are taken. Others
   behind them may be able to start. If it brought no job, the same claim scans
   `SCANNED_IN_PASSING` jobs at a time for them, and twice as many if it could leave or park none of
   these: the head of their line may be a job that this worker does not take. If it brought some,
   these start first, and the next claim is due at once.
9. Scheduled jobs are promoted when the next one is due, when a notification says that one was
   added for the next minute, and at least every `LOOK_AT_SCHEDULE_EVERY` seconds: one batch for
   each claim. If that fails, claims go on, and it is tried again later and later.
10. A claim that met jobs which another transaction was just deciding about looks again soon, and
    less and less often while that goes on.
11. Jobs that this worker hands back are as if they had just been heard of. If they belong to the
    level, its marks are lowered to them; the next claim looks above the level, too.
12. If jobs are spread over partitions, each has a plan of its own, and sweeps find in which of them
    jobs were not announced (`procrastinate.model.claiming.turns`). Such a plan looks everywhere
    only after a gap, promotes no jobs, and owes no full scan after a short one: what the marks of
    the last jobs of a partition may hide is announced, or is found by the next sweep. If all that
    a sweep found is of one queue, a full scan of that one follows: to ask for the names of all
    queues takes a coordinator as long as to claim 100 jobs. If a scan of the level brings nothing,
    no full one follows where the claim has asked whether any job is ready, and none is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from procrastinate.model.claiming.levels import Level, level_of
from procrastinate.model.claiming.scan_memory import (
    FULL_SCAN_AT_ONCE,
    NOT_IN_VAIN,
    SCHEDULE_AT_ONCE,
    FullScans,
    Half,
    Look,
    Schedule,
    Vain,
)
from procrastinate.model.claiming.scan_steps import (
    Came,
    Found,
    Kind,
    Promote,
    Scan,
    Wait,
    left_none,
)
from procrastinate.model.job import Job
from procrastinate.model.values import replace

ABOVE_EVERY = 0.05  # seconds
EVERYWHERE_EVERY = 1.0  # seconds, on a worker that makes full scans
WITHOUT_LEVEL = 10.0  # seconds
WORTH_A_TRY = 4  # times as long as a scan of the level: then that may be in vain
LOOK_AT_SCHEDULE_EVERY = 30.0  # seconds; deferring announces what is due within 60
PROMOTE_AGAIN_AFTER = 1.0  # seconds after a failure, doubled each time
LOOK_AT_UNDECIDED_AFTER = 0.02  # seconds, doubled each time
LOOK_AT_UNDECIDED_EVERY = 1.0  # seconds: a user may keep such a transaction open
SCANNED_IN_PASSING = 500  # jobs, doubled each time that all of them are undecided ...
SCANNED_AT_MOST = 32 * SCANNED_IN_PASSING  # ... up to this number
LOCKS_EXPECTED_FOR = 1.0  # seconds after a job with a lock was met
WARY_FOR = 60.0  # seconds after that
PROMOTED_AT_ONCE = 1_000  # jobs
NAMES_KEPT = 1_000  # queues that were heard of; after more, a scan looks everywhere


@dataclass(frozen=True)
class ScanPlan:
    """What is known of the queues, and the step that follows from it."""

    look: Look = Look.NOTHING
    brought: bool = False  # whether this claim has jobs already
    behind: int = 0  # how many jobs to read while this claim looks behind those that it read
    half: Half | None = None
    level: Level | None = None
    above_due: float = 0.0
    full: FullScans = FULL_SCAN_AT_ONCE
    vain: Vain = NOT_IN_VAIN
    heard: Mapping[str, int] = field(default_factory=dict)  # of queues: the number of the news
    quiet: bool = False  # whether no other queues have jobs
    everywhere_due: float = 0.0
    locks_until: float = -math.inf
    schedule: Schedule = SCHEDULE_AT_ONCE
    undecided: int = 0  # claims in a row that met such jobs
    more_behind: bool = False
    news: int = 0  # counts what was heard
    gap: int = 0  # the number of the last gap in what was heard
    is_swept: bool = False  # rule 12

    @classmethod
    def of_partition(cls) -> ScanPlan:
        """Return the plan for one of several partitions, of which nothing was heard (rule 12)."""
        never = Schedule(due=math.inf)
        return cls(schedule=never, quiet=True, everywhere_due=math.inf, is_swept=True)

    # What was heard

    def heard_of(self, queue: str) -> ScanPlan:
        """Note that a job of a queue became ready."""
        if len(self.heard) >= NAMES_KEPT and queue not in self.heard:
            return self._with_gap(self.schedule)
        news = self.news + 1
        level = self.level and self.level.heard_of(queue, news)
        return replace(self, news=news, level=level, heard={**self.heard, queue: news})

    def found_in(self, queue: str) -> ScanPlan:
        """Note that a look at all queues found jobs of this one alone, wherever they stand."""
        plan = self.heard_of(queue)
        return replace(plan, level=None, full=replace(plan.full, wanted=plan.news))

    def went_back(self, jobs: Sequence[Job]) -> ScanPlan:
        """Note that jobs which this worker had claimed went back to their places (rule 11)."""
        plan = self
        for queue in sorted({job.queue for job in jobs}):
            plan = plan.heard_of(queue)
        return replace(plan, level=plan.level and plan.level.lowered(jobs), above_due=0.0)

    def schedule_changed(self) -> ScanPlan:
        """Note that a job was scheduled for the near future."""
        return replace(self, news=self.news + 1, schedule=self.schedule.rung(self.news + 1))

    def gap_in_what_was_heard(self) -> ScanPlan:
        """Let the next claim look at everything, schedule included."""
        is_swept = self.is_swept
        return self._with_gap(self.schedule if is_swept else self.schedule.rung(self.news + 1))

    def _with_gap(self, schedule: Schedule) -> ScanPlan:
        news = self.news + 1
        full = replace(self.full, wanted=news)
        return replace(
            self,
            news=news,
            gap=news,
            level=None,
            full=full,
            heard={},
            quiet=False,
            schedule=schedule,
        )

    # The steps of a claim

    def begun(self) -> ScanPlan:
        """Begin a claim."""
        return replace(self, look=Look.SCHEDULE, brought=False, behind=0, half=None)

    def next(self, now: float, room: int) -> Scan | Promote | Wait:
        """Return the next step of a claim that has room for this many more jobs."""
        if self.look is Look.NOTHING or room == 0:
            return Wait(self.seconds_to_next_look(now))
        if self.look is Look.SCHEDULE and now >= self.schedule.due:
            return Promote(self.news)
        if self.half is not None:
            return replace(self.half.scan, limit=room, with_locks=True)
        if self.level is None or self.look in (Look.ALL, Look.BEHIND) or self.full.due(now):
            return self._scan_of_all(now, room)
        if self.look is not Look.READY and now >= self.above_due:
            return self._scan_of_level(self.level, Kind.ABOVE, now, room)
        return self._scan_of_level(self.level, Kind.LEVEL, now, room)

    def _scan_of_all(self, now: float, room: int) -> Scan:
        somewhere = self.quiet and now < self.everywhere_due
        where = tuple(sorted(self.heard)) if somewhere else ()
        return Scan(
            Kind.FULL,
            room,
            where,
            everywhere=not where,
            with_locks=self._expects_locks(now),
            wary=self._is_wary(now),
            scanned=self.behind if self.look is Look.BEHIND else 0,
            news=self.news,
        )

    def _scan_of_level(self, level: Level, kind: Kind, now: float, room: int) -> Scan:
        known = self.heard if self.quiet and self.heard else {*level.queues, *self.heard}
        queues = tuple(sorted(known))
        return Scan(
            kind,
            room,
            queues,
            priority=level.priority,
            lows=tuple(map(level.low, queues)) if kind is Kind.LEVEL else (),
            with_locks=self._expects_locks(now),
            wary=self._is_wary(now),
            news=self.news,
        )

    def _expects_locks(self, now: float) -> bool:
        return now < self.locks_until

    def _is_wary(self, now: float) -> bool:
        return now < self.locks_until + WARY_FOR

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
        plan = replace(self, look=Look.ABOVE, full=self.full.owing() if count else self.full)
        wait = LOOK_AT_SCHEDULE_EVERY
        if seconds_to_next is not None:
            wait = min(wait, seconds_to_next)
        more = count == PROMOTED_AT_ONCE or self.schedule.changed > step.news
        return replace(plan, schedule=Schedule(0.0 if more else now + wait, self.schedule.changed))

    def promotion_failed(self, now: float) -> ScanPlan:
        """Note that scheduled jobs could not be promoted."""
        failures = self.schedule.failures + 1
        wait = min(PROMOTE_AGAIN_AFTER * 2.0 ** min(failures - 1, 10), LOOK_AT_SCHEDULE_EVERY)
        schedule = Schedule(now + wait, self.schedule.changed, failures)
        return replace(self, look=Look.ABOVE, schedule=schedule)

    def saw(self, scan: Scan, found: Found, took: float, now: float) -> ScanPlan:
        """Note what a scan brought, and how many seconds it took."""
        if not scan.with_locks and found.left:
            half = Half(scan, tuple(found.jobs), took)
            return replace(self, look=Look.READY, half=half, locks_until=now + LOCKS_EXPECTED_FOR)
        jobs = list(found.jobs)
        if self.half is not None:
            jobs = sorted([*self.half.jobs, *jobs], key=_place)
            took += self.half.took
        came = Came(scan, found, jobs, took, now)
        plan = replace(self, half=None, brought=self.brought or bool(jobs))
        match scan.kind:
            case Kind.FULL:
                return plan._saw_all(came)
            case Kind.ABOVE:
                return plan._saw_above(came)
            case Kind.LEVEL:
                return plan._saw_level(came)

    def _saw_above(self, came: Came) -> ScanPlan:
        wait = 0.0 if came.found.parked else max(ABOVE_EVERY, came.took)
        plan = replace(self, look=Look.ABOVE, above_due=came.now + wait)
        if not came.filled:
            return plan
        level = level_of(came.jobs, came.scan.queues, under=self.level)
        return replace(plan, level=level)._ended(came)

    def _saw_level(self, came: Came) -> ScanPlan:
        level = self.level and self.level.claimed(came.jobs, came.scan.news)
        if came.filled:
            return replace(self, level=level)._ended(came)
        if level and level.under:
            return replace(self, level=level.under, look=Look.ABOVE, above_due=0.0)
        if self.brought:
            full = self.full if self.is_swept else self.full.owing()
            return replace(self, level=level, full=full)._ended(came)
        if came.found.none_ready and self.quiet and came.scan.queues == tuple(sorted(self.heard)):
            as_full = replace(came.scan, kind=Kind.FULL)
            return self._saw_all(Came(as_full, came.found, came.jobs, came.took, came.now))
        return replace(self, look=Look.ALL, vain=Vain(came.took, came.now + WITHOUT_LEVEL))

    def _saw_all(self, came: Came) -> ScanPlan:
        scan, found, now = came.scan, came.found, came.now
        plan = replace(
            self,
            level=self._level_after(came),
            above_due=now + ABOVE_EVERY,
            full=self.full.made(came.took, now, scan.news, short=left_none(scan, found)),
        )._heard_after(came)
        if scan.everywhere:
            due = math.inf if self.is_swept else now - came.took + EVERYWHERE_EVERY
            plan = replace(plan, everywhere_due=due)
        if came.filled:
            plan = replace(plan, vain=NOT_IN_VAIN)
        behind = self._behind(came)
        if not plan.brought and behind:
            return replace(plan, look=Look.BEHIND, behind=behind)
        return plan._ended(came)

    def _behind(self, came: Came) -> int:
        """Return how many jobs to read to look behind those that a full scan read (0: do not)."""
        scan, found = came.scan, came.found
        if found.parked:
            return scan.scanned or SCANNED_IN_PASSING
        if found.undecided < max(scan.limit, scan.scanned) or came.now >= self.locks_until:
            return 0
        wider = 2 * scan.scanned or SCANNED_IN_PASSING
        return wider if wider <= SCANNED_AT_MOST else 0

    def _level_after(self, came: Came) -> Level | None:
        """Return the level after a full scan, or None if full scans are the cheaper ones."""
        if not came.jobs:
            return None
        in_vain = came.took < WORTH_A_TRY * self.vain.took and came.now < self.vain.until
        if in_vain and not came.filled:
            return None
        level = level_of(came.jobs, came.scan.queues if came.filled else ())
        for queue, news in self.heard.items():
            if news > came.scan.news:
                level = level.heard_of(queue, news)
        return level

    def _heard_after(self, came: Came) -> ScanPlan:
        """Return what is known of single queues after a full scan."""
        scan = came.scan
        more = came.filled or bool(came.found.parked or came.found.undecided)
        again = scan.queues if more and not scan.everywhere else ()
        return replace(
            self,
            heard={q: news for q, news in self.heard.items() if news > scan.news or q in again},
            quiet=not (self.gap > scan.news or (more and scan.everywhere)),
        )

    def _ended(self, came: Came) -> ScanPlan:
        undecided = 0 if self.brought or not came.found.undecided else self.undecided
        return replace(
            self,
            look=Look.NOTHING,
            undecided=undecided + (came.found.undecided > 0),
            more_behind=came.hides_more,
        )


def _place(job: Job) -> tuple[int, int]:
    return -job.priority, job.id
