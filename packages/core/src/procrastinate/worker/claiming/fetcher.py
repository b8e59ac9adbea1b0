"""Getting jobs: ask the plan, a `ScanPlan`, for a step, do it, tell the plan what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Sequence

from procrastinate.errors import ConnectorException
from procrastinate.model.claiming.scan_steps import Promote, Scan, Wait, left_none
from procrastinate.model.claiming.scans import ScanPlan
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.storage.claim import Claim
from procrastinate.storage.finish import Ended, Keeps, keeps_none
from procrastinate.storage.handing_over import HandedOver
from procrastinate.worker.claiming.claims import Claims
from procrastinate.worker.claiming.hearing import Hearing
from procrastinate.worker.claiming.lost_answers import LostAnswers
from procrastinate.worker.database.calls import Calls, CallsAt
from procrastinate.worker.helpers.pausing import Paused


class Fetcher(Hearing):
    """Claims jobs of some queues (None: of all) for one worker.

    It claims those of one of several partitions, or (None) of the only one.
    """

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
        plan, of_partition = ScanPlan(), partition is not None
        if partition is not None:
            plan, calls = ScanPlan.of_partition(), CallsAt(calls, partition)
        self._claims = claims = Claims(
            calls, worker_id, queues, unknown, clock, paused=paused, makes_slots=of_partition
        )
        super().__init__(plan, claims.serves, clock)
        self._lost_answers = LostAnswers(calls, worker_id, delete_ended=delete_ended, keeps=keeps)
        self.left_none = False  # whether the last claim left no ready job behind
        self.is_anything_ready = claims.is_anything_ready
        self.hand_back_lost = self._lost_answers.hand_back

    async def claim(self, limit: int, known: Container[int]) -> Claim:
        """Claim up to ``limit`` jobs. ``known`` holds the ids of the jobs that are here already."""
        try:
            await self.hand_back_lost(known)
            return await self._claim(limit)
        except (ConnectorException, asyncio.CancelledError):
            self.answer_was_lost()
            raise

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
