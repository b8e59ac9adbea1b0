"""What ended at a worker, minute by minute: counted here, and added to the table once a minute.

Rules

1. It observes the worker: what is counted has been written before. It costs the jobs nothing else.
2. A minute is one of the server's clock, as far as a sign of life has told it. The server is told
   how long ago a minute was, never what the clock here says.
3. Workers do not write at the same moment: each waits up to `SPREAD` seconds after a minute.
4. Nothing is counted twice. What a statement could not add is tried again in the next minute. But
   if only the answer to its commit was lost, it is left alone, because it may have been added.
   Lost for good is what a worker that is killed has counted since its last write.
5. What has ended is noted with its time, and counted when the worker has time (`count`).
6. While the database is away, `MOST_MINUTES` are kept apart, and older ones added to the oldest.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from math import floor

from procrastinate.drive import Flow, Limit
from procrastinate.errors import ConnectorException, InsufficientPrivilege
from procrastinate.model.monitoring.minutes import MINUTE, Kind, Tallies, Tally, weights
from procrastinate.observing import events
from procrastinate.storage import minutes as flows
from procrastinate.worker.database.backoff import Backoff, reason_of
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.log import logger
from procrastinate.worker.telling import Counting

SPREAD = 5.0  # seconds
LIMIT = Limit(server=4.0, client=5.0)
MOST_MINUTES = 60
TIDY_EVERY = 600.0  # seconds


class Minutes(Counting):
    """Counts what ends at one worker. ``keep`` is how many seconds all of it is kept."""

    def __init__(
        self, calls: Calls, *, keep: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._calls = calls
        self._keep = keep
        self._clock = clock
        self._ahead = time.time() - clock()  # of the clock, until the server has told its time
        self._uncounted: list[tuple[float, Sequence[events.Attempted]]] = []  # and when they ended
        self._tallies = Tallies()
        self._counted_at: dict[int, float] = {}  # by the clock: the last ending of each minute
        self._refused = False
        self._my_turn = False
        self._tidied_at = float("-inf")

    # Counting

    def beaten(self, now: datetime, *, its_turn: bool) -> None:
        """Note what time it is by the server's clock, and whether it is this worker's turn."""
        self._ahead = now.timestamp() - self._clock()
        self._my_turn = self._my_turn or its_turn

    def on_ended(self, event: events.Ended) -> None:
        """Note jobs that have ended, also those that were given up without an attempt."""
        self._note(event.attempts)

    def on_requeued(self, event: events.Requeued) -> None:
        """Note attempts that failed and are tried again."""
        failed = [each for each in event.attempts if each.error is not None]
        if failed:
            self._note(failed)

    def _note(self, attempts: Sequence[events.Attempted]) -> None:
        if not self._refused:
            self._uncounted.append((self._clock(), attempts))

    def count(self) -> None:
        """Count what was noted (rule 5)."""
        uncounted, self._uncounted = self._uncounted, []
        for ended_at, attempts in uncounted:
            minute = floor((ended_at + self._ahead) / MINUTE)
            self._counted_at[minute] = ended_at
            self._count(minute, attempts)

    def _count(self, minute: int, attempts: Sequence[events.Attempted]) -> None:
        queues = {each.job.queue for each in attempts}
        tasks = {each.job.task_name for each in attempts}
        if len(queues) == len(tasks) == 1:
            _count_all(self._tallies.tally(minute, (queues.pop(), tasks.pop())), attempts)
            return
        by_kind: dict[Kind, list[events.Attempted]] = {}
        for each in attempts:
            by_kind.setdefault((each.job.queue, each.job.task_name), []).append(each)
        for kind, some in by_kind.items():
            _count_all(self._tallies.tally(minute, kind), some)

    def _minute(self) -> int:
        return floor((self._clock() + self._ahead) / MINUTE)

    # Writing

    def take_turn(self) -> None:
        """Tidy the table with the next write, because it is this worker's turn."""
        self._my_turn = True

    async def run(self) -> None:
        """Write once a minute, until cancelled."""
        spread = random.uniform(0, SPREAD)
        while True:
            now = self._clock() + self._ahead
            await asyncio.sleep(MINUTE - now % MINUTE + spread)
            await self.write(before=self._minute())

    async def leave(self) -> None:
        """Write all that was counted, because the worker stops.

        What that leaves has no next minute, so it is tried again at once.
        """
        await self.write(before=self._minute() + 1)
        if self._tallies.by_minute:
            await asyncio.sleep(Backoff().next_wait())
            await self.write(before=self._minute() + 1)

    async def write(self, *, before: int) -> None:
        """Write what was counted before a minute, and tidy up if that is due. Never raises."""
        self.count()
        while (minute := self._tallies.first()) is not None and minute < before:
            if not await self._write(minute):
                break
        self._keep_last(MOST_MINUTES)
        if self._my_turn and self._clock() >= self._tidied_at + TIDY_EVERY:
            self._my_turn = False
            self._tidied_at = self._clock()
            await self._tidy()

    async def _write(self, minute: int) -> bool:
        """Write what was counted in a minute, and return whether that is done with."""
        tallies = self._tallies.by_minute.pop(minute)
        counted_at = self._counted_at.pop(minute)
        sent = False  # all but the commit

        def flow() -> Flow[None]:
            nonlocal sent
            yield from flows.add(tallies, age=self._clock() - counted_at)
            sent = True

        try:
            await self._calls.run_async(flow(), transaction=True, limit=LIMIT)
        except BaseException as exc:
            if not sent:  # rule 4
                self._tallies.put_back(minute, tallies)
                self._counted_at.setdefault(minute, counted_at)
            if not isinstance(exc, Exception):
                raise
            self._failed("what ended in a minute could not be added up", exc)
            return sent
        return True

    def _keep_last(self, most: int) -> None:
        self._tallies.keep_last(most)
        self._counted_at = {each: self._counted_at[each] for each in self._tallies.by_minute}

    async def _tidy(self) -> None:
        try:
            while await self._calls.run_async(
                flows.tidy(keep=self._keep), transaction=True, limit=LIMIT
            ):
                pass
        except Exception as exc:
            self._failed("old minutes could not be tidied up", exc)

    def _failed(self, what: str, exc: Exception) -> None:
        if isinstance(exc, InsufficientPrivilege):
            self._refused = True
            self._uncounted.clear()
            self._tallies.by_minute.clear()
            logger.warning("%s, and will not be: %s", what, reason_of(exc))
        elif isinstance(exc, ConnectorException | TimeoutError):
            logger.info("%s: %s", what, reason_of(exc))
        else:
            logger.error("%s", what, exc_info=exc)


def _count_all(tally: Tally, attempts: Sequence[events.Attempted]) -> None:
    """Count attempts of one kind."""
    statuses = [each.status for each in attempts]
    for status in set(statuses):
        tally.counts[status] += statuses.count(status)
    for place, count in weights(len(attempts)):
        each = attempts[place]
        tally.measure(each.job, each.duration, count)
