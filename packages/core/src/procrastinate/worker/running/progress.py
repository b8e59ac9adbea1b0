"""How far a worker's running jobs say that they are: collected, and written once a second.

Rules

1. `Reports.say` may be called from any thread, as often as a task likes. It notes the last report
   of each job; nothing is sent.
2. A round writes all that is new in one statement, and forgets in another one what attempts have
   reported that are over. (With several partitions: in each of those that are concerned.) The next
   round begins `INTERVAL` later at the earliest. The first report goes at once.
3. Only an attempt that runs is heard: what its code says after its end is dropped.
4. Nothing of this delays a job or makes one fail. What could not be written is tried again, unless
   the job has said something newer. What a worker that died has left is removed by housekeeping.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from procrastinate.drive import Flow, Limit, at
from procrastinate.errors import InvalidData
from procrastinate.model.progress import Report
from procrastinate.storage import progress as flows
from procrastinate.storage.progress import Said
from procrastinate.worker.context import JobContext
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.running.attempt import Attempt

INTERVAL = 1.0  # seconds
LIMIT = Limit(server=4.0, client=5.0)


@dataclass(slots=True)
class _Part:
    """What a round does in one partition."""

    said: list[Said] = field(default_factory=list)
    over: dict[int, int] = field(default_factory=dict)  # the leases of attempts, by job


@dataclass(frozen=True, slots=True)
class _Shown:
    """An attempt whose report may be in the table."""

    attempt: Attempt
    lease: int
    partition: int


class Reports:
    """Collects reports of progress for one shift, and writes them.

    ``running`` returns the attempts that run, by the ids of their jobs.
    """

    def __init__(
        self,
        calls: Calls,
        worker_id: int,
        places: Places,
        outages: Outages,
        *,
        running: Callable[[], Mapping[int, Attempt]],
    ) -> None:
        self._calls = calls
        self._worker_id = worker_id
        self._places = places
        self._outages = outages
        self._running = running
        self._loop = asyncio.get_running_loop()
        self._said: dict[int, tuple[JobContext, Report]] = {}
        self._shown: dict[int, _Shown] = {}
        self._sleeps = False
        self._wake = asyncio.Event()
        self._backoff = Backoff()

    def say(self, context: JobContext, report: Report) -> None:
        """Note what an attempt reports, from any thread (rule 1)."""
        self._said[context.job.id] = (context, report)
        if self._sleeps:  # after the line above: see `_until_needed`
            self._sleeps = False
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                pass  # the loop is closed: the attempt is over

    async def run(self) -> None:
        """Do a round each second while there is something to do, until cancelled."""
        while True:
            await self._until_needed()
            wait = INTERVAL
            if not await self.round():
                wait = max(wait, self._backoff.next_wait())
            await asyncio.sleep(wait)

    async def _until_needed(self) -> None:
        if self._said or self._shown:
            return
        self._wake.clear()
        self._sleeps = True
        if not self._said:  # after the line above: who reports now sees that it has to wake
            await self._wake.wait()
        self._sleeps = False

    async def round(self) -> bool:
        """Write what is new and forget what is over (rule 2). Returns False if that failed."""
        running = self._running()
        parts: defaultdict[int, _Part] = defaultdict(_Part)
        self._look_for_ends(running, parts)
        self._take_reports(running, parts)
        done = [await self._write(partition, part) for partition, part in sorted(parts.items())]
        if not all(done):
            return False
        self._backoff.reset()
        return True

    async def leave(self) -> None:
        """Forget all that was reported, because the worker stops and no attempt runs.

        If that fails, it is tried once more.
        """
        self._running = dict
        if not await self.round():
            await asyncio.sleep(self._backoff.next_wait())
            await self.round()

    def _look_for_ends(
        self, running: Mapping[int, Attempt], parts: defaultdict[int, _Part]
    ) -> None:
        for job_id, shown in self._shown.items():
            attempt = running.get(job_id)
            if attempt is not shown.attempt or attempt.over:
                parts[shown.partition].over[job_id] = shown.lease

    def _take_reports(self, running: Mapping[int, Attempt], parts: defaultdict[int, _Part]) -> None:
        for _ in range(len(self._said)):  # and not what is said meanwhile: that may have no end
            job_id, (context, report) = self._said.popitem()
            attempt = running.get(job_id)
            if attempt is None or attempt.over or attempt.context is not context:
                continue  # rule 3
            partition = self._places.of(job_id)
            self._shown[job_id] = _Shown(attempt, attempt.lease, partition)
            parts[partition].said.append(Said(job_id, attempt.lease, report))

    async def _write(self, partition: int, part: _Part) -> bool:
        if partition in self._outages.away:
            self._put_back(part)
            return True
        flow = self._flow(part)
        try:
            if self._places.partitions.are_many:
                flow = at(partition, flow)
            await self._calls.run_async(flow, limit=LIMIT)
        except Exception as exc:
            self._backoff.warn("the progress of jobs could not be written", exc)
            if not isinstance(exc, InvalidData):  # which would be refused again
                self._put_back(part)
            return await self._outages.is_one(exc, partition)
        self._forget(part)
        return True

    def _flow(self, part: _Part) -> Flow[None]:
        if part.over:
            yield from flows.forget(part.over)
        if part.said:
            yield from flows.write(part.said, now=time.monotonic(), worker_id=self._worker_id)

    def _forget(self, part: _Part) -> None:
        for job_id, lease in part.over.items():
            if self._shown[job_id].lease == lease:  # and not that of the job's next attempt
                del self._shown[job_id]

    def _put_back(self, part: _Part) -> None:
        """Try again later what the jobs that still run have said, if it is the last of it."""
        for each in part.said:
            shown = self._shown[each.job_id]
            if shown.attempt.context is not None:
                self._said.setdefault(each.job_id, (shown.attempt.context, each.report))
