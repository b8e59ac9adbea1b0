"""Writing what became of attempts, in batches.

Rules

1. Whatever has ended while one write was under way goes into the next one. The first goes at once.
2. Nothing is dropped: while the database is away, endings wait here until it is back.
3. Every write is fenced by (worker, lease). A job that does not match was taken from this worker;
   that is logged and counted, never raised.
4. A batch that the server refuses is written one by one, so that one bad ending spoils no other;
   and an ending that is refused alone is tried again later, while others go past it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from procrastinate import json_codec
from procrastinate.drive import Flow
from procrastinate.errors import (
    ConnectionFailed,
    ConnectionLost,
    ConnectorException,
    InvalidData,
    PoolTimeout,
    UniqueViolation,
)
from procrastinate.gateway import Gateway
from procrastinate.model.job import Status
from procrastinate.model.outcome import Ending
from procrastinate.storage import finish as flows
from procrastinate.storage.finish import Ended, HandedBack
from procrastinate.worker.backoff import Backoff
from procrastinate.worker.log import logger

REFUSED_AGAIN_AFTER = 2.0  # seconds
MAX_BATCH = 500  # endings in one statement
WRITE_MAY_TAKE = 60.0  # seconds until a write is given up, as the network seems to swallow it
#: The server's codes where another transaction was in the way: the statement waited too long for a
#: lock, was the victim of a deadlock, or met a serialization failure.
IN_THE_WAY = ("55P03", "40P01", "40001")
_AWAY = (ConnectionFailed, ConnectionLost, PoolTimeout, TimeoutError)
_RETRIES_OF_A_RACE = 5


Entry = Ended | HandedBack


class Writer:
    """Carries endings to the database, one batch after the other."""

    def __init__(
        self,
        gateway: Gateway,
        worker_id: int,
        delete_jobs: str,
        *,
        on_written: Callable[[], None],
        on_requeued: Callable[[], None],
        on_released: Callable[[], None],
    ) -> None:
        self._gateway = gateway
        self._worker_id = worker_id
        self._delete_jobs = delete_jobs
        self._on_written = on_written
        self._on_requeued = on_requeued
        self._on_released = on_released
        self._entries: deque[Entry] = deque()
        self._writing: Sequence[Entry] = ()
        self._refused: list[Entry] = []
        self._unwritten: dict[int, Entry] = {}
        self._something = asyncio.Event()
        self._backoff = Backoff()
        self.lost_leases = 0

    def __len__(self) -> int:
        return len(self._entries) + len(self._writing) + len(self._refused)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._unwritten

    def unwritten(self, job_id: int) -> Entry | None:
        """The ending of a job that the database has not confirmed yet, the latest if several."""
        return self._unwritten.get(job_id)

    def add(self, entry: Entry) -> None:
        """Take an ending over; it will be written soon. If this raises, it can be called again."""
        self._something.set()
        self._unwritten[entry.job.id] = entry
        self._entries.append(entry)  # last, so that no ending is written twice

    async def run(self) -> None:
        """Write until cancelled; cancel it only when it is empty, or to give up."""
        while True:
            await self._something.wait()
            self._something.clear()
            while self._entries:
                await self._write_next_batch()
                self._on_written()

    async def _write_next_batch(self) -> None:
        count = min(len(self._entries), MAX_BATCH)
        self._writing = [self._entries.popleft() for _ in range(count)]
        unwritten = await self._write_groups(self._writing)
        self._writing = ()
        if not unwritten:
            self._backoff.reset()
            return
        self._entries.extendleft(reversed(unwritten))
        await asyncio.sleep(self._backoff.next_wait())

    async def _write_groups(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write entries, those of one kind together. Returns those to be tried again."""
        unwritten: list[Entry] = []
        for group in _groups(entries, self._delete_jobs):
            unwritten += await self._write_group(group)
        return unwritten

    async def _write_group(self, group: Sequence[Entry]) -> Sequence[Entry]:
        try:
            await self._write(group)
        except _AWAY as exc:
            if not self._backoff.failing:
                reason = str(exc) or "it does not answer"
                logger.warning("%d results wait for the database: %s", len(group), reason)
            return group
        except Exception as exc:  # whatever it is, the endings must not be lost
            if len(group) == 1:
                self._try_later(group[0], self._after_refusal(group[0], exc))
                return ()
            unwritten: list[Entry] = []
            for entry in group:
                unwritten += await self._write_group([entry])
            return unwritten
        self._confirm(group)
        return ()

    def _confirm(self, group: Sequence[Entry]) -> None:
        for entry in group:
            if self._unwritten.get(entry.job.id) is entry:
                del self._unwritten[entry.job.id]

    def _try_later(self, refused: Entry, entry: Entry) -> None:
        if self._unwritten.get(entry.job.id) is refused:
            self._unwritten[entry.job.id] = entry
        self._refused.append(entry)
        asyncio.get_running_loop().call_later(REFUSED_AGAIN_AFTER, self._try_again, entry)

    def _try_again(self, entry: Entry) -> None:
        self._refused.remove(entry)
        self._entries.append(entry)
        self._something.set()

    def _after_refusal(self, entry: Entry, exc: Exception) -> Entry:
        if isinstance(exc, ConnectorException) and exc.sqlstate in IN_THE_WAY:
            logger.info("the result of job %d waits for another transaction", entry.job.id)
            return entry
        logger.error("the result of job %d could not be written: %r", entry.job.id, exc)
        if isinstance(exc, InvalidData) and isinstance(entry, Ended) and entry.ending.error:
            error = {"attempt": entry.job.attempts, "type": "", "traceback": "", "at": None}
            error["message"] = "the error of this attempt could not be stored"
            return replace(entry, ending=replace(entry.ending, error=error))
        return entry

    async def _write(self, group: Sequence[Entry]) -> None:
        for _ in range(_RETRIES_OF_A_RACE):
            try:
                async with asyncio.timeout(WRITE_MAY_TAKE):
                    changed = await self._gateway.run_async(
                        self._flow(group), transaction=self._needs_transaction(group)
                    )
                break
            except UniqueViolation:
                continue  # a twin was deferred meanwhile; the next try sees it
        else:
            raise ConnectorException("jobs with the same queueing lock keep appearing")
        if isinstance(group[0], Ended) and group[0].ending.status is Status.TODO:
            self._on_requeued()  # it may be due before this worker's next look
        elif group[0].job.lock is not None or isinstance(group[0], HandedBack):
            self._on_released()  # jobs may be ready now, also where no notification is heard
        for entry in group:
            if entry.job.id not in changed:
                self.lost_leases += 1
                logger.warning(
                    "job %d, attempt %d: its result was not written, for this worker no longer"
                    " holds it",
                    entry.job.id,
                    entry.job.attempts,
                    extra={"action": "lost_lease", "job_id": entry.job.id},
                )

    def _needs_transaction(self, group: Sequence[Entry]) -> bool:
        """As what goes back to the queue may end instead, and is then removed."""
        may_be_removed = self._delete_jobs == "always" and not _has_ended(group[0])
        return may_be_removed or flows.needs_transaction([each.job for each in group])

    def _flow(self, group: Sequence[Entry]) -> Flow[set[int]]:
        sql, worker_id = self._gateway.sql, self._worker_id
        if isinstance(group[0], HandedBack):
            handed_back = cast(Sequence[HandedBack], group)
            return flows.hand_back(
                sql, handed_back, worker_id=worker_id, delete_ended=self._delete_jobs == "always"
            )
        ended = cast(Sequence[Ended], group)
        now = time.monotonic()
        if ended[0].ending.status is Status.TODO:
            return flows.retry_job(
                sql,
                ended[0],
                now=now,
                worker_id=worker_id,
                dumps=json_codec.dumps,
                delete_ended=self._delete_jobs == "always",
            )
        if _is_deleted(ended[0].ending, self._delete_jobs):
            return flows.delete_finished(sql, ended, worker_id=worker_id)
        return flows.finish_jobs(sql, ended, now=now, worker_id=worker_id, dumps=json_codec.dumps)


def _has_ended(entry: Entry) -> bool:
    return isinstance(entry, Ended) and entry.ending.status.is_final


def _is_deleted(ending: Ending, delete_jobs: str) -> bool:
    if delete_jobs == "never" or not ending.status.is_final:
        return False
    return delete_jobs == "always" or ending.status is Status.SUCCEEDED


def _groups(entries: Sequence[Entry], delete_jobs: str) -> list[list[Entry]]:
    """Entries that one flow writes: by kind, retries one by one, those with a lock apart."""
    groups: defaultdict[object, list[Entry]] = defaultdict(list)
    for entry in entries:
        locked = entry.job.lock is not None
        if isinstance(entry, HandedBack):
            groups["hand back", locked].append(entry)
        elif entry.ending.status is Status.TODO:
            groups["retry", id(entry)].append(entry)  # several of one job: see Backlog.take
        else:
            groups["finish", locked, _is_deleted(entry.ending, delete_jobs)].append(entry)
    return list(groups.values())
