"""Looking after all partitions together: jobs that were not announced, and scheduled ones.

Rules

1. A sweep is one read over all partitions. It finds those with ready jobs, and when the next
   scheduled job of each is due. When to sweep is decided in `procrastinate.model.claiming.turns`.
2. The workers that hear notifications, and that serve all queues, take turns: a fleet makes one
   sweep in each polling interval. One that has not room for all that its sweep found tells the
   others. Any other worker sweeps for itself in each interval.
3. Scheduled jobs are promoted when they are due, whether this worker has room for them or not: it
   may be the only one that knows of them. They are announced to all.
4. While a node is away, there is no sweep: all partitions of the others count as found.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from procrastinate.drive import at
from procrastinate.errors import ConnectorException
from procrastinate.model.claiming.turns import Turns, seconds_to_turn
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.model.liveness.alarm import Alarm
from procrastinate.model.liveness.judging import has_turn
from procrastinate.model.partitions import Partitions
from procrastinate.storage import claim as flows
from procrastinate.storage.claim import Waiting
from procrastinate.storage.workers import Beat
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.calls import OF_A_PARTITION, Calls
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.helpers.pausing import Paused
from procrastinate.worker.waking import woken_within

PROMOTE_AGAIN_AFTER = 1.0  # seconds after a failure


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What the last answered beat said of the live workers, and when it was heard."""

    beat: Beat
    heard_at: float

    def now(self, clock: float) -> datetime:
        """Return the server's time."""
        return self.beat.now + timedelta(seconds=clock - self.heard_at)

    @property
    def place(self) -> tuple[int, int]:
        """The worker's rank, and the number of workers."""
        return self.beat.rank, self.beat.live


class Sweeper:
    """Sweeps and promotes for one shift, and knows whose turn is next."""

    def __init__(
        self,
        calls: Calls,
        partitions: Partitions,
        queues: Sequence[str] | None,
        unknown: UnknownTasks,
        outages: Outages,
        paused: Paused,
        *,
        interval: float,
        on_found: Callable[[int, str | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._queues = queues
        self._unknown = unknown
        self._outages = outages
        self._paused = paused
        self._interval = interval
        #: Is called with a partition that may have ready jobs, and their queue if it is one.
        self._on_found = on_found
        self._clock = clock
        self.turns = Turns(interval=interval)
        #: Called if partitions became hot.
        self.on_hot: Callable[[], None] = lambda: None
        #: Returns for how many more jobs this worker has room.
        self.room: Callable[[], int] = lambda: 0
        self.listens = False  # whether notifications are heard
        self._fleet: _Fleet | None = None
        self._schedules = {each: Alarm(math.inf) for each in partitions.values}
        self._sweeping = asyncio.Lock()
        self._promoting = asyncio.Lock()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Sweep and promote whenever that is due, until cancelled."""
        backoff = Backoff()
        while True:
            self._wake.clear()
            try:
                await self.sweep_if_due()
                await self._promote_due()
            except (ConnectorException, TimeoutError) as exc:
                backoff.warn("partitions cannot be swept for now", exc)
                await asyncio.sleep(backoff.next_wait())
                continue
            backoff.reset()
            await self._sleep()

    async def _sleep(self) -> None:
        now = self._clock()
        due = min(self.turns.ask_again_at(now, self._outages.away), self._next_promotion()[0])
        await woken_within(self._wake, None if due == math.inf else max(0.0, due - now))

    # News

    def beaten(self, beat: Beat) -> None:
        """Note what the answer to a beat says of the fleet."""
        now, before = self._clock(), self._fleet
        self._fleet = _Fleet(beat, now)
        has_moved = before is None or before.place != self._fleet.place
        if has_moved and now < self.turns.sweep_at < math.inf:
            wait = self._seconds_to_turn(now, has_swept=False)
            self.turns = self.turns.turn_moved(now + wait)
            self._wake.set()

    def gap_in_what_was_heard(self) -> None:
        """Sweep at once."""
        self.turns = self.turns.gap_in_what_was_heard()
        self._wake.set()

    def heard_of(self, partition: int) -> None:
        """Note that a job of a partition became ready."""
        self.turns = self.turns.heard_of(partition)

    def schedule_changed(self, partition: int) -> None:
        """Note that a job of a partition was scheduled for the near future."""
        self._schedules[partition].ring()
        self._wake.set()

    # Sweeps

    async def sweep_if_due(self) -> None:
        """Sweep if it is time."""
        if self._clock() >= self.turns.sweep_due_at(self._clock(), self._outages.away):
            await self.sweep()

    async def sweep(self) -> None:
        """Look at all partitions, and promote what is due."""
        async with self._sweeping:
            began = self._clock()
            self.turns = self.turns.sweep_began()
            try:
                found = await self._look()
            except BaseException:
                self.turns = self.turns.gap_in_what_was_heard()
                raise
            self._note(found, began)
        await self._announce(found)
        await self._promote_due()

    async def _look(self) -> Sequence[Waiting]:
        names = self._unknown.left_out(self._clock())
        away = self._outages.away
        if not away:
            try:
                return await self._calls.run_async(
                    flows.sweep(queues=self._queues, unknown_names=names, paused=self._paused.now)
                )
            except (ConnectorException, TimeoutError) as exc:
                if not await self._outages.is_one(exc):
                    raise
        return [Waiting(each, 1, 0, 0.0) for each in self._schedules if each not in away]

    def _note(self, found: Sequence[Waiting], began: float) -> None:
        now = self._clock()
        for each in found:
            if each.seconds_to_next is not None:
                schedule = self._schedules[each.partition]
                schedule.at = min(schedule.at, now + each.seconds_to_next)
        ready = [(each.partition, each.queue) for each in found if each.ready]
        random.shuffle(ready)  # other workers may be about to look at the same ones
        next_at = now + self._seconds_to_turn(now, has_swept=True)
        places = [partition for partition, _ in ready]
        self.turns = self.turns.swept(places, began=began, now=now, next_at=next_at)
        self._found(ready)

    def _found(self, ready: Sequence[tuple[int, str | None]]) -> None:
        for partition, queue in ready:
            self._on_found(partition, queue)
        if ready:
            self.on_hot()

    async def _announce(self, found: Sequence[Waiting]) -> None:
        """Tell others of what this worker has no room for, or does not serve (rule 2)."""
        if self._fleet is None or self._fleet.beat.live == 1:
            return
        too_many = sum(each.ready for each in found) > self.room()
        speaks_for_all = self._has_turn()
        partitions = [
            each.partition
            for each in found
            if (each.ready and too_many) or (each.elsewhere and speaks_for_all)
        ]
        if partitions:
            await self._calls.run_async(flows.announce(partitions))

    # Turns

    @property
    def _takes_turns(self) -> bool:
        return self.listens and self._queues is None

    def _seconds_to_turn(self, now: float, *, has_swept: bool) -> float:
        if self._fleet is None or not self._takes_turns:
            return self._interval
        rank, live = self._fleet.place
        return seconds_to_turn(
            self._fleet.now(now),
            interval=self._interval,
            rank=rank,
            live=live,
            has_swept=has_swept,
        )

    def _has_turn(self) -> bool:
        assert self._fleet is not None
        now, (rank, live) = self._fleet.now(self._clock()), self._fleet.place
        return has_turn(now, interval=self._interval, rank=rank, live=live)

    # Promotions

    def _next_promotion(self) -> tuple[float, int]:
        away = self._outages.away
        due = ((alarm.at, each) for each, alarm in self._schedules.items() if each not in away)
        return min(due, default=(math.inf, 0))

    async def _promote_due(self) -> None:
        """Promote what is due. What is being promoted already is waited for."""
        async with self._promoting:
            while True:
                due, partition = self._next_promotion()
                if self._clock() < due:
                    return
                await self._promote(partition)

    async def _promote(self, partition: int) -> None:
        schedule = self._schedules[partition]
        schedule.begin()
        try:
            flow = at(partition, flows.promote_due())
            made = await self._calls.run_async(flow, limit=OF_A_PARTITION)
        except ConnectorException as exc:
            schedule.end(self._clock() + PROMOTE_AGAIN_AFTER)
            if not await self._outages.is_one(exc, partition):
                raise
            return
        except BaseException:
            schedule.ring()
            raise
        wait = made.seconds_to_next
        schedule.end(math.inf if wait is None else self._clock() + wait)
        if made.count:
            self.heard_of(partition)
            self._found([(partition, None)])
