"""Getting jobs: ask the plan for a step, do it, tell the plan what came of it.

The plan is `procrastinate.model.claiming.scans`.

A `Fetcher` gets the jobs of a database with one partition, or of one of several. For all of these
there is `procrastinate.worker.claiming.partitioned`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING

from procrastinate.errors import ConnectorException
from procrastinate.model.claiming.scan_steps import Promote, Scan, Wait, left_none
from procrastinate.model.claiming.scans import ScanPlan
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.model.job import Job
from procrastinate.storage.claim import Claim
from procrastinate.storage.finish import Ended, Keeps, keeps_none
from procrastinate.storage.handing_over import HandedOver
from procrastinate.worker.claiming.claims import Claims
from procrastinate.worker.claiming.lost_answers import LostAnswers
from procrastinate.worker.database.calls import Calls, CallsAt
from procrastinate.worker.helpers.pausing import Paused

if TYPE_CHECKING:
    from procrastinate.worker.claiming.sweeper import Sweeper


class Fetcher:
    """Claims jobs of some queues (None: of all) for one worker.

    With a ``partition`` it claims only the jobs of this one of several.
    """

    claims_beside_lines = False  # whether it can claim while the lines before locks go on

    def __init__(
        self,
        calls: Calls,
        worker_id: int,
        queues: Sequence[str] | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        delete_ended: bool = False,
        keeps: Keeps = keeps_none,
        unknown: UnknownTasks | None = None,
        paused: Paused | None = None,
        partition: int | None = None,
    ) -> None:
        self._clock = clock
        self._plan = ScanPlan()
        if partition is not None:
            self._plan = ScanPlan.of_partition()
            calls = CallsAt(calls, partition)
        self._claims = claims = Claims(
            calls,
            worker_id,
            queues,
            unknown,
            clock,
            paused=paused,
            makes_slots=partition is not None,
        )
        self._lost_answers = LostAnswers(calls, worker_id, delete_ended=delete_ended, keeps=keeps)
        self.left_none = False  # whether the last claim left no ready job behind
        self.serves, self.is_anything_ready = claims.serves, claims.is_anything_ready
        self.hand_back_lost = self._lost_answers.hand_back
        # Of these only `PartitionedFetcher` makes use.
        self.sweeper: Sweeper | None = None
        self.must_be_sure = False

    def hear(self, queue: str) -> bool:
        """Note that a job became ready in a queue, and return whether it is served."""
        is_served = self.serves(queue)
        if is_served:
            self.heard_of(queue)
        return is_served

    def heard_of(self, queue: str) -> None:
        """Note that a job of a queue that is served became ready."""
        self._plan = self._plan.heard_of(queue)

    def hear_of_schedule(self, queue: str = "") -> None:
        """Note that a job was scheduled for the near future."""
        self._plan = self._plan.schedule_changed()

    def went_back(self, jobs: Sequence[Job], partition: int = 0) -> None:
        """Note what was written: these jobs went back to their places, or a lock was freed."""
        if jobs:
            self._plan = self._plan.went_back(jobs)

    def look_at(self, partition: int) -> None:
        """Look at everything in the only partition."""
        self.look_at_everything()

    def poll(self) -> None:
        """Look at everything, because nothing was heard for a polling interval."""
        self.look_at_everything()

    def look_at_everything(self) -> None:
        """Make the next claim a full one, schedule included: after a gap in what was heard."""
        self._plan = self._plan.gap_in_what_was_heard()

    @property
    def unsure(self) -> bool:
        """Whether the last claim met jobs that another transaction was deciding about."""
        return self._plan.undecided > 0

    @property
    def seconds_to_next_look(self) -> float:
        """How long to wait at the most, if nothing is heard."""
        return self._plan.seconds_to_next_look(self._clock())

    async def claim(self, limit: int, known: Container[int]) -> Claim:
        """Claim up to ``limit`` jobs. ``known`` holds the ids of the jobs that are here already."""
        try:
            await self.hand_back_lost(known)
            return await self._claim(limit)
        except (ConnectorException, asyncio.CancelledError):
            self.answer_was_lost()
            raise

    def left_none_in(self, partition: int, is_claimed: bool) -> bool:
        """Return whether the last look left no ready job behind, and nothing was heard since.

        ``is_claimed`` says whether a claim is under way or due.
        """
        return not is_claimed

    async def hand_over(self, ended: Sequence[Ended], limit: int, partition: int = 0) -> HandedOver:
        """Write that jobs with locks have succeeded, and claim the next ones of their lines."""
        try:
            return await self._claims.hand_over(ended, limit)
        except BaseException:
            self.answer_was_lost()
            raise

    def answer_was_lost(self) -> None:
        """Before the next claim, hand back what this worker was given without knowing it."""
        self._lost_answers.note()
        self.look_at_everything()

    async def _claim(self, limit: int) -> Claim:
        found, self._plan = Claim([]), self._plan.begun()
        while not isinstance(step := self._plan.next(self._clock(), limit - len(found.jobs)), Wait):
            if isinstance(step, Promote):
                await self._promote(step)
            else:
                found += await self._scan(step)
        return found

    async def _promote(self, step: Promote) -> None:
        made = await self._claims.promote(failed_before=self._plan.schedule.failures > 0)
        now = self._clock()
        if made is None:
            self._plan = self._plan.promotion_failed(now)
        else:
            self._plan = self._plan.promoted(step, made.count, made.seconds_to_next, now)

    async def _scan(self, scan: Scan) -> Claim:
        began, scan = self._clock(), await self._claims.filled_in(scan)
        found = await self._claims.scan(scan)
        self.left_none = left_none(scan, found)
        self._plan = self._plan.saw(scan, found, (now := self._clock()) - began, now)
        return found
