"""Getting jobs: which scan to use, when to look at the schedule, and what to do after an error.

Rules

1. A busy queue is scanned from a low-water mark: the priority and the id just below the first job
   of the last claim. Full scans find what the marks hide: late commits, retries, other priorities,
   jobs that got their lock. One is made when a marked scan brings nothing, when a queue without a
   mark is heard of, and otherwise as often as a tenth of the time allows: a queue whose dead
   entries cannot be vacuumed may take seconds, and any other no longer than from its mark.
2. After a marked scan in vain, marks are left out for `WITHOUT_MARKS` seconds while full scans take
   less time than it took, until there is a backlog again: above the marks may be thousands of
   parked jobs, which the planner takes to be ready, and so reads.
3. What a short marked scan brought starts at once; the full scan that it owes follows, within the
   same limits.
4. Once a full scan has come back short, jobs are in the queues that are heard of from then on: the
   next full scan looks into these and no others. But once in `EVERYWHERE_EVERY` seconds, and after
   `look_at_everything`, it looks everywhere: for what nobody announces, such as the jobs of a claim
   that was rolled back.
5. A claim passes over jobs that have a lock, which makes it cheaper. If it met any, another one
   follows that takes them too, as all do for the next `LOCKS_EXPECTED_FOR` seconds.
6. Behind the jobs that a claim read may be jobs that can start, where it had to leave some of them
   or to park them (their locks are taken). While it has none, it looks again itself, once or while
   it parks, and scans more jobs than there is room for, to pass over or park as many at a time.
   What it has starts first; then the next look is due at once.
7. Scheduled jobs are promoted when the next one is due, when a notification says that one was added
   for the next minute, and at least every `LOOK_AT_SCHEDULE_EVERY` seconds.
8. A claim that met jobs which another transaction was just deciding about looks again soon, and
   less and less often while that goes on.
9. After a claim whose answer was lost, the database is asked which jobs it gave us; those nobody
   here knows are handed back.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable, Container, Iterable, Sequence

from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException
from procrastinate.gateway import Gateway
from procrastinate.model.job import Job
from procrastinate.storage import claim as flows
from procrastinate.storage.claim import Claim, Mark
from procrastinate.storage.finish import HandedBack, hand_back, needs_transaction

FULL_SCAN_SHARE = 0.1  # of the time, while marks are to be had
FULL_SCAN_EVERY = (0.05, 10.0)  # seconds, at the least and at the most
EVERYWHERE_EVERY = 1.0  # seconds, on a worker that makes full scans
WITHOUT_MARKS = 10.0  # seconds
LOOK_AT_SCHEDULE_EVERY = 30.0  # seconds; deferring announces what is due within 60
LOOK_AT_UNDECIDED_AFTER = 0.02  # seconds: a transaction of another worker's; doubling, for ...
LOOK_AT_UNDECIDED_EVERY = 1.0  # ... it may also be one that a user keeps open
SCANNED_IN_PASSING = 500  # jobs
LOCKS_EXPECTED_FOR = 1.0  # seconds after a job with a lock was met


class Fetcher:
    """Claims jobs of some queues (None: of all) for one worker."""

    def __init__(
        self,
        gateway: Gateway,
        worker_id: int,
        queues: Sequence[str] | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        delete_ended: bool = False,
    ) -> None:
        self._gateway = gateway
        self._worker_id = worker_id
        self._queues = queues
        self._clock = clock
        self._delete_ended = delete_ended
        self._marks: dict[str, Mark] = {}
        self._full_scan_due = 0.0
        self._full_scan_owed = math.inf
        self._full_scan_earliest = 0.0
        self._spent_in_vain = 0.0  # seconds, in the last marked scan that brought nothing ...
        self._in_vain_until = 0.0  # ... as long as that counts
        self._only_in: set[str] | None = None  # the queues that may have a ready job; None: any
        self._everywhere_due = 0.0
        self._locks_expected_until = 0.0
        self._schedule_due = 0.0
        self._answer_lost = False
        self._undecided_in_a_row = 0
        self._more_behind = False

    def serves(self, queue: str) -> bool:
        """Whether this worker works on a queue."""
        return self._queues is None or queue in self._queues

    def heard_of(self, queue: str) -> None:
        """Note that a job of a queue that is served became ready."""
        if self._only_in is not None:
            self._only_in.add(queue)
        if queue not in self._marks:
            self._full_scan_due = 0.0

    def schedule_changed(self) -> None:
        """Note that a job was scheduled for the near future."""
        self._schedule_due = 0.0

    def look_at_everything(self) -> None:
        """Make the next claim a full one, schedule included: after a gap in what was heard."""
        self._full_scan_due = self._schedule_due = 0.0
        self._only_in = None

    @property
    def unsure(self) -> bool:
        """Whether the last claim met jobs that another transaction was just deciding about."""
        return self._undecided_in_a_row > 0

    @property
    def seconds_to_next_look(self) -> float:
        """How long to wait at the most.

        For the schedule, for a full scan that is owed, or for others to decide about jobs.
        """
        if self._more_behind:
            return 0.0
        next_look = max(0.0, min(self._schedule_due, self._full_scan_owed) - self._clock())
        if not self._undecided_in_a_row:
            return next_look
        doubled = LOOK_AT_UNDECIDED_AFTER * 2.0 ** min(self._undecided_in_a_row - 1, 10)
        return min(next_look, doubled, LOOK_AT_UNDECIDED_EVERY)

    async def claim(self, limit: int, known: Container[int]) -> Claim:
        """Claim up to ``limit`` jobs. ``known`` holds the ids of the jobs that are here already."""
        try:
            await self.settle(known)
            if self._clock() >= self._schedule_due:
                await self._promote()
            found = await self._claim(limit)
            self._note_undecided(found)
            self._more_behind = _may_hide_more(found, limit)
            return found
        except (ConnectorException, asyncio.CancelledError):
            self._answer_lost = True
            self.look_at_everything()
            raise

    async def settle(self, known: Container[int]) -> None:
        """After a lost answer, hand back the jobs that this worker holds without knowing it."""
        if self._answer_lost:
            await self._hand_back_unknown(known)

    def _note_undecided(self, found: Claim) -> None:
        if found.jobs or not found.undecided:
            self._undecided_in_a_row = 0
        if found.undecided:
            self._undecided_in_a_row += 1

    async def _claim(self, limit: int) -> Claim:
        if self._marks and self._clock() < min(self._full_scan_due, self._full_scan_owed):
            began = self._clock()
            found = await self._claim_marked(limit)
            if found.jobs:
                return found
            self._spent_in_vain = self._clock() - began
            self._in_vain_until = self._clock() + WITHOUT_MARKS
        found = await self._claim_full(limit)
        stuck = found.undecided >= limit and self._clock() < self._locks_expected_until
        while not found.jobs and (found.parked or stuck):
            found, stuck = await self._claim_full(limit, scanned=SCANNED_IN_PASSING), False
        return found

    async def _claim_marked(self, limit: int) -> Claim:
        found = await self._scan(functools.partial(flows.claim_marked, marks=self._marks), limit)
        self._marks.update(_marks_of(filter(self._is_marked, found.jobs)))
        if len(found.jobs) < limit:
            self._full_scan_owed = self._full_scan_earliest
        return found

    def _is_marked(self, job: Job) -> bool:
        """Whether a job was found by a scan from the marks, and not as the next of its lock."""
        mark = self._marks[job.queue]
        return job.priority == mark.priority and job.id > mark.low

    async def _claim_full(self, limit: int, scanned: int = 0) -> Claim:
        began = self._clock()
        self._full_scan_due = self._full_scan_owed = math.inf  # news meanwhile make it 0 again
        where = None if began >= self._everywhere_due else self._only_in
        if not where:
            self._everywhere_due = began + EVERYWHERE_EVERY
        self._only_in = set()  # news meanwhile are added, or make it None
        found = Claim([])
        queues = await self._queues_to_scan(where)
        if queues:
            claim = functools.partial(flows.claim_full, queues=queues, scanned=scanned)
            found = await self._scan(claim, limit)
        took = self._clock() - began
        self._marks = _marks_of(found.jobs)
        if len(found.jobs) == limit:
            self._spent_in_vain = 0.0
        elif took < self._spent_in_vain and self._clock() < self._in_vain_until:
            self._marks = {}
        self._plan_full_scan(took)
        if found.parked or found.undecided or len(found.jobs) == limit:  # there may be more
            news = self._only_in
            self._only_in = None if where is None or news is None else where | news
        return found

    def _plan_full_scan(self, took: float) -> None:
        least, most = FULL_SCAN_EVERY
        wait = min(took / FULL_SCAN_SHARE, most)
        self._full_scan_earliest = self._clock() + wait
        if self._full_scan_due:
            self._full_scan_due = self._clock() + max(wait, least)

    async def _queues_to_scan(self, where: set[str] | None) -> Sequence[str]:
        if where:
            return sorted(where)
        if self._queues is not None:
            return self._queues
        return await self._gateway.run_async(flows.ready_queues(self._gateway.sql))

    async def _scan(self, claim: Callable[..., Flow[Claim]], limit: int) -> Claim:
        """Claim up to ``limit`` jobs by one scan: those without a lock first, while none is met."""
        found = Claim([])
        if self._clock() >= self._locks_expected_until:
            found = await self._run(claim, limit, unlocked_only=True)
            if not found.left:
                return found
            self._locks_expected_until = self._clock() + LOCKS_EXPECTED_FOR
        return found + await self._run(claim, limit - len(found.jobs), unlocked_only=False)

    async def _run(
        self, claim: Callable[..., Flow[Claim]], limit: int, *, unlocked_only: bool
    ) -> Claim:
        return await self._gateway.run_async(
            claim(
                self._gateway.sql,
                served=self._queues,
                worker_id=self._worker_id,
                limit=limit,
                loads=self._gateway.connector.json_loads,
                unlocked_only=unlocked_only,
            )
        )

    async def _promote(self) -> None:
        self._schedule_due = math.inf  # news meanwhile make it 0 again
        promotion = await self._gateway.run_async(flows.promote_due(self._gateway.sql))
        while promotion.count == flows.PROMOTED_AT_ONCE:
            promotion = await self._gateway.run_async(flows.promote_due(self._gateway.sql))
        if promotion.count:
            self._full_scan_due = 0.0
        to_next = promotion.seconds_to_next
        wait = LOOK_AT_SCHEDULE_EVERY if to_next is None else min(to_next, LOOK_AT_SCHEDULE_EVERY)
        if self._schedule_due:
            self._schedule_due = self._clock() + wait

    async def _hand_back_unknown(self, known: Container[int]) -> None:
        held = await self._gateway.run_async(
            flows.held_jobs(self._gateway.sql, worker_id=self._worker_id)
        )
        unknown = [job for job in held if job.id not in known]
        if unknown:
            await self._gateway.run_async(
                hand_back(
                    self._gateway.sql,
                    [HandedBack(job, begun=False) for job in unknown],
                    worker_id=self._worker_id,
                    delete_ended=self._delete_ended,
                ),
                transaction=self._delete_ended or needs_transaction(unknown),
            )
        self._answer_lost = False


def _may_hide_more(found: Claim, limit: int) -> bool:
    """Whether jobs that a claim read, but did not get, stood in the way of others behind them."""
    got = len(found.jobs)
    if got == limit:
        return False  # there is no room for more
    return found.parked > 0 or (got > 0 and got + found.undecided >= limit)


def _marks_of(jobs: Iterable[Job]) -> dict[str, Mark]:
    """The marks below the first job of each queue in a claim, which is in order."""
    marks: dict[str, Mark] = {}
    for job in jobs:
        if job.queue not in marks:
            marks[job.queue] = Mark(job.priority, job.id - 1)
    return marks
