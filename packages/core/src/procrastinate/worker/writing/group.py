"""Writing one group of outcomes, and telling the parts of the worker that need to know.

A group is what one statement writes (`procrastinate.worker.writing.parts`). Every write is fenced
by (worker, lease). If it matches no row, the row says why: the outcome was written before and only
the answer was lost, or the job was taken from this worker. Both are logged, neither is raised.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from procrastinate import json_codec
from procrastinate.drive import Flow, T, at
from procrastinate.errors import ConnectorException, UniqueViolation
from procrastinate.model.endings.outcome import Requeued
from procrastinate.model.job import Job, sets_going
from procrastinate.storage import finish as flows
from procrastinate.storage.finish import Ended, Keeps, Settled
from procrastinate.storage.statements import PATIENCE_MS
from procrastinate.worker.database.calls import OF_A_PARTITION, Calls
from procrastinate.worker.telling import Telling
from procrastinate.worker.writing.echoes import Echoes
from procrastinate.worker.writing.parts import Parts, is_deleted, is_requeued
from procrastinate.worker.writing.written import is_lost, log_what_was_written

WRITE_MAY_TAKE = 60.0  # seconds until a write is given up, as the network seems to swallow it
_RETRIES_OF_A_RACE = 5


class GroupWriter:
    """Writes groups of outcomes. ``unwritten`` are those that the database has not confirmed yet.

    ``on_requeued`` hears in which partition a job may be due soon, ``on_released`` which jobs went
    back and which locks were freed, and ``on_lost`` that a job was taken from this worker.
    """

    def __init__(
        self,
        calls: Calls,
        worker_id: int,
        delete_jobs: str,
        parts: Parts,
        unwritten: dict[int, Ended],
        *,
        on_requeued: Callable[[int], None],
        on_released: Callable[[Sequence[Job], Sequence[str], int], None],
        on_lost: Callable[[], None],
        echoes: Echoes,
        keeps: Keeps,
        telling: Telling,
    ) -> None:
        self._calls = calls
        self._worker_id = worker_id
        self._delete_jobs = delete_jobs
        self._parts = parts
        self._are_many = parts.are_many
        self._unwritten = unwritten
        self._on_requeued = on_requeued
        self._on_released = on_released
        self._on_lost = on_lost
        self._echoes = echoes
        self._keeps = keeps  # whether a task keeps results, by its name
        self._telling = telling

    async def write(self, group: Sequence[Ended], patience_ms: int) -> None:
        """Write a group. What it cannot write it raises, and then none of it is written."""
        for _ in range(_RETRIES_OF_A_RACE):
            try:
                async with asyncio.timeout(WRITE_MAY_TAKE):
                    flow = self._flow(group, patience_ms)
                    if several := self._needs_transaction(group):
                        flow = self._expecting_echoes(flow)
                    settled = await self._run(flow, transaction=several)
                break
            except UniqueViolation:
                continue  # a twin was deferred meanwhile; the next try sees it
            except BaseException:
                self._echoes.forget()
                raise
        else:
            raise ConnectorException("jobs with the same queueing lock keep appearing")
        self.note_written(group, settled)

    async def write_together(self, groups: Sequence[Sequence[Ended]]) -> list[Settled]:
        """Write groups of several partitions in one transaction, and return what that changed."""
        flows = [self._flow(group, PATIENCE_MS) for group in groups]
        async with asyncio.timeout(WRITE_MAY_TAKE):
            return await self._run(_all_of(flows), transaction=True)

    def written_elsewhere(self, entries: Sequence[Ended], settled: Settled) -> None:
        """Note that another statement has written these: one that goes on with lines."""
        self._forget(entries)
        self._telling.written(entries, settled)

    def note_written(self, group: Sequence[Ended], settled: Settled) -> None:
        """Note what a write changed, and tell who waits for it."""
        self._announce(group, settled, self._parts.place_of(group))
        self._forget(group)
        changed = settled.changed
        odd = [entry for entry in group if changed.get(entry.job.id) is not entry.outcome.status]
        for entry in odd:
            log_what_was_written(entry, settled)
        if any(is_lost(entry.job, settled) for entry in odd):
            self._on_lost()  # others that run here may be lost as well
        self._telling.written(group, settled)

    def _forget(self, written: Sequence[Ended]) -> None:
        for entry in written:
            if self._unwritten.get(entry.job.id) is entry:
                del self._unwritten[entry.job.id]
        self._parts.forget(written)

    def _expecting_echoes(self, flow: Flow[Settled]) -> Flow[Settled]:
        """Run a flow, and before its commit note what will be heard of it."""
        settled = yield from flow
        self._echoes.expect(settled.passed)
        return settled

    async def _run(self, flow: Flow[T], *, transaction: bool) -> T:
        limit = OF_A_PARTITION if self._are_many else None
        return await self._calls.run_async(flow, transaction=transaction, limit=limit)

    def _flow(self, group: Sequence[Ended], patience_ms: int) -> Flow[Settled]:
        flow = self._flow_of(group, patience_ms)
        return at(self._parts.place_of(group), flow) if self._are_many else flow

    def _flow_of(self, group: Sequence[Ended], patience_ms: int) -> Flow[Settled]:
        worker_id = self._worker_id
        if is_deleted(group[0], self._delete_jobs):
            return flows.delete_finished(group, worker_id=worker_id, patience_ms=patience_ms)
        if self._delete_jobs == "always":
            for entry in group:  # of jobs that go back before they began, this is not known yet
                entry.kept = entry.kept or self._keeps(entry.job.task_name)
        return flows.settle(
            group,
            now=time.monotonic(),
            worker_id=worker_id,
            dumps=json_codec.dumps,
            delete_ended=self._delete_jobs == "always",
            patience_ms=patience_ms,
        )

    def _needs_transaction(self, group: Sequence[Ended]) -> bool:
        """Whether the flow takes several statements: what goes back may end and be removed."""
        may_be_removed = self._delete_jobs == "always" and any(map(is_requeued, group))
        return may_be_removed or sets_going(group[0].job)

    def _announce(self, group: Sequence[Ended], settled: Settled, partition: int) -> None:
        requeued = [each.outcome for each in group if isinstance(each.outcome, Requeued)]
        if any(each.when is not None or not each.begun for each in requeued):
            # It may be due before the next look at the schedule, or stand before the place from
            # which the next scan reads.
            self._on_requeued(partition)
        elif requeued or sets_going(group[0].job):
            # Jobs may be ready now. Behind some poolers no notification says so.
            back = [each.job for each in group if is_requeued(each)]
            self._on_released(back, settled.passed, partition)


def _all_of(flows: Sequence[Flow[Settled]]) -> Flow[list[Settled]]:
    settled = []
    for flow in flows:
        settled.append((yield from flow))
    return settled
