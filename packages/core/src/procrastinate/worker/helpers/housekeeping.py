"""A worker's care for the queue: requests to abort, and the jobs of workers that show no life.

Rules

1. It runs on the event loop, on the connections of the worker's pool. The heartbeat does not wait
   for it.
2. While this worker holds no job, it does not ask for requests to abort.
3. Only one of all live workers recovers, prunes and mends in each interval, and only a worker that
   may judge others does (`procrastinate.model.liveness.judging`).
4. One read over all partitions says which of them have something to be done. If a part of a
   distributed database is away, such a read fails: then the others are asked one by one. Which dead
   workers were alone is not judged from what these say.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from procrastinate.drive import Flow, T, at
from procrastinate.errors import ConnectorException
from procrastinate.model.job import Status
from procrastinate.model.liveness.alarm import Alarm
from procrastinate.model.partitions import Partitions
from procrastinate.model.text import printable
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage import locks, progress, waits
from procrastinate.storage import workers as flows
from procrastinate.storage.claim import held_jobs
from procrastinate.storage.finish import Keeps
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.log import logger
from procrastinate.worker.telling import UNSEEN, Telling
from procrastinate.worker.waking import woken_within

ONE_BY_ONE_MAY_TAKE = (
    2.0  # seconds for recovering jobs that other transactions may be in the way of
)
#: The server's codes if another transaction was in the way of a recovery: a twin with the same
#: queueing lock was committed, or something was waited for too long, or in a circle.
IN_THE_WAY = ("23505", "55P03", "40P01", "40001")


class Housekeeping:
    """Looks for requests to abort, and for dead workers when it is this worker's turn."""

    def __init__(
        self,
        calls: Calls,
        worker_id: int,
        options: WorkerOptions,
        *,
        keeps: Keeps,
        partitions: Partitions,
        outages: Outages,
        leases: Callable[[], Mapping[int, int]],
        may_judge: Callable[[], bool],
        on_aborts: Callable[[set[int]], None],
        on_lost: Callable[[set[int]], None],
        telling: Telling = UNSEEN,
    ) -> None:
        self._calls = calls
        self._worker_id = worker_id
        self._options = options
        self._keeps = keeps  # whether a task keeps results, by its name
        self._partitions = partitions
        self._outages = outages
        outages.on_back.append(lambda _: self.look_for_aborts())
        self._leases = leases  # of the jobs that are here, by their ids
        self._may_judge = may_judge
        self._on_aborts = on_aborts
        self._on_lost = on_lost
        self._telling = telling
        self._delete_ended = options.delete_jobs == "always"
        self._aborts = Alarm()
        self._asked_to_look = False
        self._turn = asyncio.Event()  # set if something rang
        self._my_turn = False
        self._losses_likely = False

    def look_for_aborts(self) -> None:
        """Look at once for requests to abort that may not have been heard."""
        self._asked_to_look = True  # also if it seems to have no job: a claim may be under way
        self._aborts.ring()
        self._turn.set()

    def take_turn(self) -> None:
        """Look at once for dead workers, because it is this one's turn."""
        self._my_turn = True
        self._turn.set()

    def look_for_losses(self) -> None:
        """Look at once which jobs are this worker's no more, because one is known to be lost."""
        self._losses_likely = True
        self._turn.set()

    async def run(self) -> None:
        """Go on until cancelled."""
        backoff = Backoff()
        while True:
            self._turn.clear()
            try:
                await self._round()
            except (ConnectorException, TimeoutError) as exc:
                backoff.warn("housekeeping waits for the database", exc)
                self.look_for_aborts()
                await asyncio.sleep(backoff.next_wait())
                continue
            backoff.reset()
            await self._sleep()

    async def _round(self) -> None:
        if self._aborts.due(time.monotonic()):
            self._aborts.begin()
            asked, self._asked_to_look = self._asked_to_look, False
            if asked or self._leases():
                await self._look_for_aborts()
            self._aborts.end(time.monotonic() + self._options.abort_job_polling_interval)
        if self._losses_likely:
            self._losses_likely = False
            await self._look_for_losses()
        if self._my_turn:
            self._my_turn = False
            if self._may_judge():
                await self.recover(self._options.stalled_worker_timeout)

    async def _sleep(self) -> None:
        await woken_within(self._turn, max(0.0, self._aborts.at - time.monotonic()))

    async def _look_for_aborts(self) -> None:
        await self._everywhere(self._look_for_aborts_in)

    async def _look_for_aborts_in(self, partition: int | None) -> None:
        ids = await self._run(flows.abort_requests(self._worker_id), partition)
        if ids:
            self._on_aborts(ids)

    async def _look_for_losses(self) -> None:
        here = dict(self._leases())  # before: what is claimed meanwhile may be in no answer
        flow = held_jobs(worker_id=self._worker_id)
        if self._outages.away:  # this cannot be known
            self._losses_likely = True
            return
        try:
            held = {job.id: job.lease for job in await self._calls.run_async(flow)}
        except BaseException as exc:
            self._losses_likely = True
            if await self._outages.is_one(exc):
                return
            raise
        lost = {job_id for job_id, lease in here.items() if held.get(job_id) != lease}
        now = self._leases()
        lost = {job_id for job_id in lost if now.get(job_id) == here[job_id]}
        if lost:
            self._on_lost(lost)

    async def recover(self, timeout: float) -> None:
        """Recover the jobs of workers that were silent for ``timeout`` seconds, and tidy up."""
        timeout_us = int(timeout * 1e6)
        await self._everywhere(functools.partial(self._recover, timeout_us))
        if not self._outages.away:
            # Later, because those who died in the same moment are judged with a look at one
            # another. (If a part of the database is away, it is not known who holds jobs there.)
            await self._run(flows.prune_workers(timeout_us=2 * timeout_us))
        # Before the lines: a statement about very many of them may reach its limit in each turn.
        await self._everywhere(functools.partial(self._fail_unknown, timeout_us))
        await self._everywhere(self._mend)
        await self._everywhere(self._prune_waits)
        await self._everywhere(self._prune_progress)

    async def _everywhere(self, look: Callable[[int | None], Awaitable[None]]) -> None:
        """Look at all partitions at once (None), or at one after the other (rule 4)."""
        try:
            if not self._outages.away:
                await look(None)
                return
        except (ConnectorException, TimeoutError) as exc:
            if not await self._outages.is_one(exc):
                raise
        for partition in self._partitions.values:
            if partition in self._outages.away:
                continue
            try:
                await look(partition)
            except (ConnectorException, TimeoutError) as exc:
                if not await self._outages.is_one(exc, partition):
                    raise

    async def _run(
        self, flow: Flow[T], partition: int | None = None, *, transaction: bool = False
    ) -> T:
        """Run a flow in a partition (None: in all that it is about)."""
        if partition is not None:
            flow = at(partition, flow)
        return await self._calls.run_async(flow, transaction=transaction)

    async def _mend(self, partition: int | None) -> None:
        await self._run(locks.mend(), partition, transaction=True)

    async def _prune_waits(self, partition: int | None) -> None:
        await self._run(waits.prune_waits(), partition)

    async def _prune_progress(self, partition: int | None) -> None:
        await self._run(progress.prune(), partition)

    async def _fail_unknown(self, timeout_us: int, partition: int | None) -> None:
        """Fail the jobs whose tasks no live worker has known for as long as they may wait."""
        flow = flows.fail_unknown(
            patience_us=int(self._options.unknown_task_patience * 1e6),
            timeout_us=timeout_us,
            delete_ended=self._delete_ended,
        )
        failed = await self._run(flow, partition, transaction=True)
        self._telling.given_up(failed)
        for name, count in Counter(each.task_name for each in failed).items():
            logger.error(
                "%s of the task %s failed: no live worker knows it, and the patience of %g"
                " seconds is over",
                printable.counted(count, "job"),
                printable.line(repr(name)),
                self._options.unknown_task_patience,
                extra={"action": "fail_unknown", "task_name": name},
            )

    async def _recover(self, timeout_us: int, partition: int | None) -> None:
        try:
            while len(await self._recovered(timeout_us, partition)) == flows.RECOVERED_AT_ONCE:
                pass
        except ConnectorException as exc:
            if exc.sqlstate not in IN_THE_WAY:
                raise
            await self._recover_one_by_one(timeout_us, partition)

    async def _recover_one_by_one(self, timeout_us: int, partition: int | None) -> None:
        """Recover what can be, if another open transaction is in the way of some jobs.

        In random order and for a short time, so that the jobs that have to wait do not keep the
        others waiting.
        """
        places = await self._run(flows.stalled_places(timeout_us=timeout_us), partition)
        random.shuffle(places)
        deadline = time.monotonic() + ONE_BY_ONE_MAY_TAKE
        while places and time.monotonic() < deadline:
            job_id, where = places.pop()
            try:
                await self._recovered(timeout_us, partition, ids=[job_id], where=where)
            except ConnectorException as exc:
                if exc.sqlstate not in IN_THE_WAY:
                    raise
                logger.info(
                    "job %d lost its worker; it goes back to the queue once another transaction"
                    " is no longer in the way (%s)",
                    job_id,
                    exc,
                    extra={"action": "recover", "job_id": job_id},
                )

    def _is_deleted(self, recovered: flows.Recovered) -> bool:
        return self._delete_ended and not self._keeps(recovered.task_name)

    async def _recovered(
        self,
        timeout_us: int,
        partition: int | None,
        *,
        ids: Sequence[int] | None = None,
        where: int | None = None,
    ) -> list[flows.Recovered]:
        flow = flows.recover_jobs(
            timeout_us=timeout_us,
            ids=ids,
            partition=where,
            delete_ended=self._delete_ended,
            keeps=self._keeps,
            judge=partition is None,
        )
        recovered = await self._run(flow, partition, transaction=True)
        _log_recovered(recovered, deleted=self._is_deleted)
        self._telling.recovered(recovered)
        return recovered


def _log_recovered(
    recovered: list[flows.Recovered], *, deleted: Callable[[flows.Recovered], bool]
) -> None:
    """Say in one line what was taken over, and name each job that goes no further."""
    if not recovered:
        return
    again = [each for each in recovered if each.status is Status.TODO]
    logger.warning(
        "recovered %s of dead workers: %d to run again",
        printable.counted(len(recovered), "job"),
        len(again),
        extra={"action": "recover", "job_ids": [each.job_id for each in recovered]},
    )
    for each in recovered:
        if each.status is not Status.TODO:
            logger.error(
                "job %d (%s) lost its worker and is now %s: %s",
                each.job_id,
                printable.line(each.task_name),
                each.status.value,
                "deleted, as with delete_jobs=always" if deleted(each) else "see its errors",
                extra={
                    "action": "recover",
                    "job_id": each.job_id,
                    "task_name": each.task_name,
                    "queue": each.queue,
                    "status": each.status.value,
                },
            )
