"""Getting jobs: which scan to use, when to look at the schedule, and what to do after an error.

Rules

1. A busy queue is scanned from a low-water mark: the priority and the id just below the first job
   of the last claim. A full scan follows when a marked one comes back short, when a queue without a
   mark is heard of, and once in `FULL_SCAN_EVERY` seconds: it finds what the marks hide.
2. A claim that had to park jobs (their locks are taken) looks again at once: behind them may be
   jobs that can start.
3. Scheduled jobs are promoted when the next one is due, when a notification says that one was added
   for the next minute, and at least every `LOOK_AT_SCHEDULE_EVERY` seconds.
4. A claim that met jobs which another transaction was just deciding about looks again soon, and
   less and less often while that goes on.
5. After a claim whose answer was lost, the database is asked which jobs it gave us; those nobody
   here knows are handed back.
6. Every claim names all queues that are served, also those that it does not scan: the line of a
   lock runs through them all. Where a worker serves all queues, those are the ones it has seen.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Container, Sequence

from procrastinate.errors import ConnectorException
from procrastinate.gateway import Gateway
from procrastinate.model.job import Job
from procrastinate.storage import claim as flows
from procrastinate.storage.claim import Claim, Mark
from procrastinate.storage.finish import Unstarted, hand_back, needs_transaction

FULL_SCAN_EVERY = 1.0  # seconds
LOOK_AT_SCHEDULE_EVERY = 30.0  # seconds; deferring announces what is due within 60
LOOK_AT_UNDECIDED_AFTER = 0.02  # seconds: a transaction of another worker's; doubling, for ...
LOOK_AT_UNDECIDED_EVERY = 1.0  # ... it may also be one that a user keeps open
REMEMBERED_QUEUES = 100


class Fetcher:
    """Claims jobs of some queues (None: of all) for one worker."""

    def __init__(
        self,
        gateway: Gateway,
        worker_id: int,
        queues: Sequence[str] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._worker_id = worker_id
        self._queues = queues
        self._clock = clock
        self._marks: dict[str, Mark] = {}
        self._full_scan_due = 0.0
        self._schedule_due = 0.0
        self._answer_lost = False
        self._undecided_in_a_row = 0
        self._seen: set[str] = set()

    def serves(self, queue: str) -> bool:
        """Whether this worker works on a queue."""
        return self._queues is None or queue in self._queues

    def heard_of(self, queue: str) -> None:
        """Note that a job arrived in a queue."""
        self._seen.add(queue)
        if queue not in self._marks:
            self._full_scan_due = 0.0

    def schedule_changed(self) -> None:
        """Note that a job was scheduled for the near future."""
        self._schedule_due = 0.0

    def look_at_everything(self) -> None:
        """Make the next claim a full one, schedule included: after a gap in what was heard."""
        self._full_scan_due = self._schedule_due = 0.0

    @property
    def unsure(self) -> bool:
        """Whether the last claim met jobs that another transaction was just deciding about."""
        return self._undecided_in_a_row > 0

    @property
    def seconds_to_next_look(self) -> float:
        """How long to wait at the most: for the schedule, or for others to decide about jobs."""
        to_schedule = max(0.0, self._schedule_due - self._clock())
        if not self._undecided_in_a_row:
            return to_schedule
        doubled = LOOK_AT_UNDECIDED_AFTER * 2.0 ** min(self._undecided_in_a_row - 1, 10)
        return min(to_schedule, doubled, LOOK_AT_UNDECIDED_EVERY)

    async def claim(self, limit: int, known: Container[int]) -> Claim:
        """Claim up to ``limit`` jobs. ``known`` holds the ids of the jobs that are here already."""
        try:
            await self.settle(known)
            if self._clock() >= self._schedule_due:
                await self._promote()
            found = await self._claim(limit)
            self._note_undecided(found)
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
        found = Claim([])
        if self._marks and self._clock() < self._full_scan_due:
            found = await self._claim_marked(limit)
        while len(found.jobs) < limit:
            more = await self._claim_full(limit - len(found.jobs))
            found += more
            if not more.parked:
                break
        return found

    async def _claim_marked(self, limit: int) -> Claim:
        found = await self._gateway.run_async(
            flows.claim_marked(
                self._gateway.sql,
                queues=self._queues or self._seen,
                marks=self._marks,
                worker_id=self._worker_id,
                limit=limit,
                loads=self._gateway.connector.json_loads,
            )
        )
        self._marks.update(_marks_of(found.jobs))
        return found

    async def _claim_full(self, limit: int) -> Claim:
        self._full_scan_due = self._clock() + FULL_SCAN_EVERY  # news meanwhile make it 0 again
        queues = self._queues
        if queues is None:
            queues = self._remembered(
                await self._gateway.run_async(flows.ready_queues(self._gateway.sql))
            )
        if not queues:
            self._marks = {}
            return Claim([])
        found = await self._gateway.run_async(
            flows.claim_full(
                self._gateway.sql,
                queues=queues,
                worker_id=self._worker_id,
                limit=limit,
                loads=self._gateway.connector.json_loads,
            )
        )
        self._marks = _marks_of(found.jobs)
        return found

    def _remembered(self, ready: Sequence[str]) -> list[str]:
        """The queues with ready jobs, and those that were seen before; none if none is ready."""
        if len(self._seen) > REMEMBERED_QUEUES:
            self._seen.clear()
        self._seen.update(ready)
        return sorted(self._seen) if ready else []

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
                    [Unstarted(job, begun=False) for job in unknown],
                    worker_id=self._worker_id,
                ),
                transaction=needs_transaction(unknown),
            )
        self._answer_lost = False


def _marks_of(jobs: Sequence[Job]) -> dict[str, Mark]:
    """The marks below the first job of each queue in a claim, which is in order."""
    marks: dict[str, Mark] = {}
    for job in jobs:
        if job.queue not in marks:
            marks[job.queue] = Mark(job.priority, job.id - 1)
    return marks
