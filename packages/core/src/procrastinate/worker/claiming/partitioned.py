"""Getting the jobs of a distributed database: a `Fetcher` for each partition, one at a time.

`procrastinate.model.claiming.turns` decides which partition is next. Jobs that were not announced
are found by the `Sweeper`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Container, Sequence

from procrastinate.errors import ConnectorException
from procrastinate.model.claiming.news import queue_and_partition
from procrastinate.model.claiming.turns import STAY
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.model.job import Job
from procrastinate.storage.claim import Claim
from procrastinate.storage.finish import Ended, Keeps, keeps_none
from procrastinate.storage.handing_over import HandedOver
from procrastinate.worker.claiming.fetcher import Fetcher
from procrastinate.worker.claiming.sweeper import Sweeper
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.helpers.pausing import Paused

#: Seconds after which a partition that is back is asked once more what this worker holds there. Its
#: node may have had a claim before it fell silent, and carry it out when it wakes.
SETTLED_AGAIN_AFTER = 5.0
ASKED = 2  # hot partitions that are asked whether a job is ready; in more of them there is one


class PartitionedFetcher:
    """Claims jobs of some queues (None: of all) from all partitions, for one worker."""

    claims_beside_lines = True

    def __init__(
        self,
        calls: Calls,
        worker_id: int,
        queues: Sequence[str] | None,
        places: Places,
        outages: Outages,
        clock: Callable[[], float] = time.monotonic,
        *,
        interval: float,
        delete_ended: bool = False,
        keeps: Keeps = keeps_none,
        unknown: UnknownTasks | None = None,
        paused: Paused | None = None,
    ) -> None:
        unknown = UnknownTasks() if unknown is None else unknown
        self._paused = paused = Paused() if paused is None else paused
        self._clock = clock
        self._queues = queues
        self._places = places
        self._outages = outages
        self._fetchers: dict[int, Fetcher] = {}
        self._new_fetcher = functools.partial(
            Fetcher,
            calls,
            worker_id,
            queues,
            clock,
            delete_ended=delete_ended,
            keeps=keeps,
            unknown=unknown,
            paused=paused,
        )
        self.sweeper = Sweeper(
            calls,
            places.partitions,
            queues,
            unknown,
            outages,
            paused,
            interval=interval,
            on_found=lambda partition, queue: self._at(partition).found(queue),
            clock=clock,
        )
        self.left_none = False  # whether the last claim left no ready job behind
        #: Whether a claim that brings no job is to show that there is none. It sweeps for that.
        self.must_be_sure = False
        self._unanswered: set[int] = set()  # partitions that were away during a claim
        self._going_on: set[int] = set()  # partitions in which lines go on: none is claimed from
        outages.on_back.append(self._came_back)

    def _at(self, partition: int) -> Fetcher:
        fetcher = self._fetchers.get(partition)
        if fetcher is None:
            fetcher = self._fetchers[partition] = self._new_fetcher(partition=partition)
        return fetcher

    # News

    def hear(self, payload: str) -> bool:
        """Note what was announced, and return whether it concerns this worker."""
        said = queue_and_partition(payload, self._places.partitions.values)
        if said is None:
            return False
        queue, partition = said
        if queue:
            if self._queues is not None and queue not in self._queues:
                return False
            if self._paused.has(queue):
                return False
            self._at(partition).heard_of(queue)
        else:
            if self._queues is not None:  # it sweeps for itself
                return False
            self._at(partition).look_at_everything()
        self.sweeper.heard_of(partition)
        return True

    def hear_of_schedule(self, payload: str) -> None:
        """Note that a job was scheduled for the near future."""
        said = queue_and_partition(payload, self._places.partitions.values)
        if said is not None:
            self.sweeper.schedule_changed(said[1])

    def went_back(self, jobs: Sequence[Job], partition: int) -> None:
        """Note what was written: these jobs went back to their places, or a lock was freed."""
        if jobs:
            self._at(partition).went_back(jobs)
        self.sweeper.heard_of(partition)

    def look_at(self, partition: int) -> None:
        """Look at all of a partition, schedule included."""
        self._at(partition).look_at_everything()
        self.sweeper.heard_of(partition)
        self.sweeper.schedule_changed(partition)
        self.sweeper.on_hot()

    def look_at_everything(self) -> None:
        """Look at all partitions: after a gap in what was heard."""
        self.sweeper.gap_in_what_was_heard()

    def poll(self) -> None:
        """Do nothing, because the sweeper does."""

    def _came_back(self, partition: int) -> None:
        self.look_at(partition)
        if partition in self._unanswered:
            self._unanswered.remove(partition)
            again = self._answer_was_lost
            asyncio.get_running_loop().call_later(SETTLED_AGAIN_AFTER, again, partition)

    def _answer_was_lost(self, partition: int) -> None:
        self._at(partition).answer_was_lost()
        self.sweeper.heard_of(partition)
        self.sweeper.on_hot()

    # Claims

    @property
    def unsure(self) -> bool:
        """Whether the last claims met jobs that another transaction was deciding about."""
        return any(fetcher.unsure for fetcher in self._fetchers.values())

    @property
    def seconds_to_next_look(self) -> float:
        """How long to wait at the most, if nothing is heard."""
        return self.sweeper.turns.seconds_to_next_claim(self._clock(), self._not_now())

    def _next(self) -> int | None:
        return self.sweeper.turns.next(self._clock(), self._not_now())

    def _not_now(self) -> Container[int]:
        """Return the partitions that cannot be claimed from at the moment."""
        away = self._outages.away
        return {*away, *self._going_on} if self._going_on else away

    async def claim(self, limit: int, known: Container[int]) -> Claim:
        """Claim up to ``limit`` jobs. ``known`` holds the ids of the jobs that are here already."""
        if self.must_be_sure and self._next() is None:
            await self.sweeper.sweep()
        found, until = Claim([]), self._clock() + STAY
        gave: list[int] = []
        while (room := limit - len(found.jobs)) and (partition := self._next()) is not None:
            if found.jobs and self._clock() >= until:
                break  # what is here begins first
            try:
                found += await self._claim_from(partition, room, known)
            except (ConnectorException, TimeoutError):
                if not found.jobs:
                    raise
                break  # what other partitions gave is here, and the next claim meets the error
            except asyncio.CancelledError:
                for each in gave:
                    self._answer_was_lost(each)
                raise
            gave.append(partition)
        self.left_none = self._next() is None
        return found

    async def _claim_from(self, partition: int, room: int, known: Container[int]) -> Claim:
        sweeper, fetcher = self.sweeper, self._at(partition)
        sweeper.turns = sweeper.turns.began(partition, self._clock())
        try:
            found = await fetcher.claim(room, known)
        except BaseException as exc:
            sweeper.turns = sweeper.turns.failed(partition)
            if await self._outages.is_one(exc, partition):
                self._unanswered.add(partition)
                return Claim([])
            raise
        self._places.note(found.jobs, partition)
        wait = fetcher.seconds_to_next_look
        sweeper.turns = sweeper.turns.claimed(
            partition, more=len(found.jobs) == room or wait == 0, again_at=self._clock() + wait
        )
        return found

    def left_none_in(self, partition: int, is_claimed: bool) -> bool:
        """Return whether the last look at a partition left none behind. See `Fetcher`."""
        return partition not in self._going_on and not self._is_hot(partition)

    def _is_hot(self, partition: int) -> bool:
        return partition in self.sweeper.turns.hot(self._clock())

    async def hand_over(self, ended: Sequence[Ended], limit: int, partition: int) -> HandedOver:
        """Write that jobs of a partition have succeeded, and claim the next ones of their lines."""
        self._going_on.add(partition)
        try:
            done = await self._at(partition).hand_over(ended, limit)
        except BaseException as exc:
            self._answer_was_lost(partition)
            if await self._outages.is_one(exc, partition):
                self._unanswered.add(partition)
            raise
        finally:
            self._going_on.discard(partition)
            if self._is_hot(partition):
                self.sweeper.on_hot()
        self._places.note(done.claim.jobs, partition)
        return done

    async def is_anything_ready(self) -> bool:
        """Return whether a job is ready in the queues that are served.

        A claim that came back full may have left nothing behind, so hot partitions are asked.
        """
        now, away = self._clock(), self._outages.away
        hot = self.sweeper.turns.hot(now, away)
        if not hot and now >= self.sweeper.turns.sweep_from:
            await self.sweeper.sweep()
            return self._next() is not None
        if len(hot) > ASKED:
            return True
        for partition in hot:
            if await self._at(partition).is_anything_ready():
                return True
        return False

    async def hand_back_lost(self, known: Container[int]) -> None:
        """Hand back what a claim whose answer was lost has claimed, if there was one."""
        for partition, fetcher in self._fetchers.items():
            if partition not in self._outages.away:
                await fetcher.hand_back_lost(known)
