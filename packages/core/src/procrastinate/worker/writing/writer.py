"""Writing what became of attempts, in batches.

Rules

1. Whatever has ended while one write was under way goes into the next one. The first goes at once.
   The next one begins `PAUSE` later at the earliest, because a write of few outcomes costs almost
   as much as one of many. It does not wait if it has many, frees a lock, or hands a job back.
2. Nothing is dropped: while the database is away, or short of something such as disk space,
   outcomes wait here until that is over. The log says so once, and not for each of them.
3. A batch that the server refuses is written again by kind, then by halves, so that one bad outcome
   spoils no other (`procrastinate.worker.writing.halving`). The search takes one short step after
   each batch, so it holds up no other outcome. What is refused alone is tried again later.
4. How a batch is divided, and what waits for a partition that is away: see
   `procrastinate.worker.writing.parts`.
5. If the lines of locks go on, the statement that writes the end of a job may claim the next one
   for this worker (`procrastinate.worker.claiming.claiming`, rule 4). What that leaves is written
   as usual.
"""

from __future__ import annotations

import asyncio
import enum
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import replace

from procrastinate.errors import (
    ConnectionFailed,
    ConnectionLost,
    ConnectorException,
    InvalidData,
    PartitionAway,
    PoolTimeout,
)
from procrastinate.model.endings.outcome import has_succeeded, without_refused
from procrastinate.model.job import Job, sets_going
from procrastinate.model.text.printable import counted
from procrastinate.storage.finish import Ended, Keeps, Settled, keeps_none
from procrastinate.storage.statements import PATIENCE_MS
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.log import logger
from procrastinate.worker.telling import UNSEEN, Telling
from procrastinate.worker.writing import halving
from procrastinate.worker.writing.echoes import Echoes
from procrastinate.worker.writing.group import WRITE_MAY_TAKE, GroupWriter
from procrastinate.worker.writing.halving import Doubtful
from procrastinate.worker.writing.parts import Parts, evenly, is_awaited, is_deleted, kind_of

REFUSED_AGAIN_AFTER = 2.0  # seconds
MAX_BATCH = 500  # outcomes in one statement
MAX_RESULTS = 4_000_000  # characters of results in one statement, or one result more
PAUSE = 0.002  # seconds from the beginning of a write to that of the next, if few outcomes wait
LINES_AT_ONCE = 64  # lines that one statement goes on with; meanwhile the jobs of others run
MANY = 20  # outcomes that are written without a pause
SEARCH_PATIENCE_MS = 50  # milliseconds that a step of a search waits for another transaction
#: The server's codes if another transaction was in the way: the statement waited too long for a
#: lock, was the victim of a deadlock, or met a serialization failure.
IN_THE_WAY = ("55P03", "40P01", "40001")
DISK_FULL = "53100"  # whatever is written
SHORT = "53"  # the class of codes if the server is short of something: disk, memory, connections
_AWAY = (ConnectionFailed, ConnectionLost, PartitionAway, PoolTimeout, TimeoutError)


class _Answer(enum.Enum):
    WRITTEN = enum.auto()
    REFUSED = enum.auto()
    AWAY = enum.auto()
    PARTITION_AWAY = enum.auto()


class Writer:
    """Carries outcomes to the database, one batch after the other."""

    def __init__(
        self,
        calls: Calls,
        worker_id: int,
        delete_jobs: str,
        places: Places,
        outages: Outages,
        *,
        on_written: Callable[[], None],
        on_requeued: Callable[[int], None],
        on_released: Callable[[Sequence[Job], Sequence[str], int], None],
        hand_over: Callable[[Sequence[Ended], int], Awaitable[Settled | None]],
        echoes: Echoes,
        on_lost: Callable[[], None],
        on_refused_result: Callable[[Ended], Ended | None] = lambda _: None,
        keeps: Keeps = keeps_none,
        telling: Telling = UNSEEN,
    ) -> None:
        self._delete_jobs = delete_jobs
        self._outages = outages
        self._parts = Parts(places, outages, delete_jobs, on_back=self._try_again)
        self._are_many = self._parts.are_many
        self._on_written = on_written
        self._hand_over = hand_over
        self._failed_without_result = on_refused_result
        self._telling = telling
        self._entries: deque[Ended] = deque()
        self._writing: Sequence[Ended] = ()
        self._doubts: deque[Doubtful[Ended]] = deque()  # refused batches
        self._waiting = 0  # outcomes that were refused alone, to be tried again later
        self._refusal: Exception | None = None  # the server's last one
        #: The outcomes that the database has not confirmed yet, by job: if several, the latest.
        self.unwritten: dict[int, Ended] = {}
        self._groups = GroupWriter(
            calls,
            worker_id,
            delete_jobs,
            self._parts,
            self.unwritten,
            on_requeued=on_requeued,
            on_released=on_released,
            on_lost=on_lost,
            echoes=echoes,
            keeps=keeps,
            telling=telling,
        )
        self._something = asyncio.Event()
        self._pausing = False
        self._urgent = asyncio.Event()
        self._backoff = Backoff()
        self._short = False  # whether the server is short of something, as the log says

    def __len__(self) -> int:
        doubtful = sum(len(each.undecided) for each in self._doubts)
        return len(self._entries) + len(self._writing) + doubtful + self._waiting

    def __contains__(self, job_id: object) -> bool:
        return job_id in self.unwritten

    def on_the_way(self) -> set[int]:
        """The jobs whose outcomes are unwritten; not those of partitions that are away."""
        entries = self.unwritten.values()
        return {entry.job.id for entry in entries if not self._parts.is_away([entry])}

    def add(self, entry: Ended) -> None:
        """Take an outcome over; it will be written soon. If this raises, it can be called again."""
        if not self._entries:  # else they are being written, or it is set
            self._something.set()
        self.unwritten[entry.job.id] = entry
        self._entries.append(entry)  # last, so that no ending is written twice
        if self._pausing and (is_awaited(entry) or len(self._entries) >= MANY):
            self._urgent.set()

    async def run(self) -> None:
        """Write until cancelled; cancel it only when it is empty, or to give up.

        It may run again after it was cancelled or has died.
        """
        if self._writing:  # the run before has not learnt whether these were written
            self._entries.extendleft(reversed(self._writing))
            self._writing = ()
        if self._entries or self._doubts:  # the run before may have cleared the event for these
            self._something.set()
        not_before = -math.inf
        while True:
            await self._something.wait()
            self._something.clear()
            await asyncio.sleep(0)  # else the next job's first step would wait for this write
            while self._entries or self._doubts:
                await self._pause(not_before - time.monotonic())
                not_before = time.monotonic() + PAUSE
                await self._write_next_batch()
                self._on_written()

    async def _pause(self, seconds: float) -> None:
        """Wait for more outcomes (rule 1)."""
        if seconds <= 0 or self._is_urgent():
            return
        self._pausing = True
        self._urgent.clear()
        timer = asyncio.get_running_loop().call_later(seconds, self._urgent.set)
        try:
            await self._urgent.wait()
        finally:
            self._pausing = False
            timer.cancel()

    def _is_urgent(self) -> bool:
        return len(self._entries) >= MANY or any(map(is_awaited, self._entries))

    async def _write_next_batch(self) -> None:
        self._writing = self._next_ones()
        self._telling.meanwhile()
        unwritten: list[Ended] = []
        groups = await self._write_together(self._parts.of(self._writing))
        for group in await self._go_on_with_lines(groups):
            unwritten += await self._write_group(group)
        self._writing = ()
        if self._doubts and not unwritten:
            unwritten += await self._search(self._doubts[0])
        if not unwritten:
            self._backoff.reset()
            return
        self._entries.extendleft(reversed(unwritten))
        await asyncio.sleep(self._backoff.next_wait())

    def _next_ones(self) -> list[Ended]:
        """Take the outcomes of the next batch, the oldest ones."""
        taken: list[Ended] = []
        room = MAX_RESULTS
        while self._entries and len(taken) < MAX_BATCH and room > 0:
            entry = self._entries.popleft()
            taken.append(entry)
            if (result := entry.outcome.result) is not None:
                room -= len(result)
        return taken

    async def _write_together(self, groups: list[list[Ended]]) -> list[list[Ended]]:
        """Write groups of several partitions in one transaction; return those that are left.

        If anything goes wrong, all are.
        """
        if not self._are_many:
            return groups
        together, left = self._parts.together(groups)
        if not together:
            return left
        try:
            written = await self._groups.write_together(together)
        except Exception as exc:
            # It may be about the node of any of them.
            await self._outages.is_one(exc)
            return groups
        for group, settled in zip(together, written, strict=True):
            self._groups.note_written(group, settled)
        return left

    async def _write_group(self, group: Sequence[Ended]) -> Sequence[Ended]:
        """Write entries together. Returns them if the database is away."""
        answer = await self._try(group, PATIENCE_MS)
        if answer is _Answer.PARTITION_AWAY:
            self._hold(group)
        elif answer is _Answer.REFUSED:
            if len(group) == 1:
                self._try_later([self._after_refusal(group[0])])
            else:
                self._doubts.append(Doubtful(group, halving.by_kind(group, kind_of)))
        return group if answer is _Answer.AWAY else ()

    async def _go_on_with_lines(self, groups: list[list[Ended]]) -> list[Sequence[Ended]]:
        """Write what can be handed over to the next jobs of lines (rule 5); return the rest.

        Lines of several partitions go on beside each other, as far as there are connections.
        """
        go_on = map(self._without_handed_over, groups)
        if self._are_many:
            left = await asyncio.gather(*go_on)
        else:
            left = [await each for each in go_on]
        return [group for group in left if group]

    async def _without_handed_over(self, group: Sequence[Ended]) -> Sequence[Ended]:
        if not sets_going(group[0].job) or is_deleted(group[0], self._delete_jobs):
            return group
        ended = [each for each in group if has_succeeded(each.outcome)]
        for part in evenly(ended, LINES_AT_ONCE):
            written = await self._hand_over_part(part)
            group = [each for each in group if each.job.id not in written]
        return group

    async def _hand_over_part(self, ended: Sequence[Ended]) -> Container[int]:
        """Hand over what can be; return the ids of the jobs whose endings are written so."""
        if self._parts.is_away(ended):
            return ()
        try:
            async with asyncio.timeout(WRITE_MAY_TAKE):
                settled = await self._hand_over(ended, self._parts.place_of(ended))
        except Exception:
            return ()  # the usual way meets the same, and deals with it
        if settled is None:
            return ()
        handed_over = [each for each in ended if each.job.id in settled.changed]
        self._groups.written_elsewhere(handed_over, settled)
        return settled.changed

    async def _search(self, doubtful: Doubtful[Ended]) -> Sequence[Ended]:
        """Take one step of a search. Returns all that is in doubt if the database is away."""
        assert doubtful.part is not None
        answer = await self._try(doubtful.part, SEARCH_PATIENCE_MS)
        self._doubts.popleft()
        if answer is _Answer.AWAY:
            return doubtful.undecided
        if answer is _Answer.PARTITION_AWAY:
            self._hold(doubtful.undecided)
            return ()
        if answer is _Answer.WRITTEN:
            doubtful.accepted()
        elif (culprit := doubtful.refused()) is not None:
            self._try_later([self._after_refusal(culprit)])
        if doubtful.part is not None:
            self._doubts.append(doubtful)
        elif doubtful.undecided:
            self._try_later(doubtful.undecided)
        return ()

    async def _try(self, group: Sequence[Ended], patience_ms: int) -> _Answer:
        if self._parts.is_away(group):
            return _Answer.PARTITION_AWAY
        try:
            await self._groups.write(group, patience_ms)
        except Exception as exc:  # whatever it is, the outcomes must not be lost
            if await self._outages.is_one(exc, self._parts.place_of(group)):
                return _Answer.PARTITION_AWAY
            if isinstance(exc, _AWAY):
                endings = counted(len(group), "ending")
                self._backoff.warn(f"waiting for the database with {endings}", exc)
                return _Answer.AWAY
            if _is_short(exc, alone=len(group) == 1):
                self._say_short(exc)
                return _Answer.AWAY
            self._refusal = exc
            return _Answer.REFUSED
        self._say_short(None)
        return _Answer.WRITTEN

    def _say_short(self, exc: Exception | None) -> None:
        """Log once that the server is short of something, and once that it is not any more."""
        was_short, self._short = self._short, exc is not None
        if exc is not None and not was_short:
            endings = counted(len(self), "ending")
            logger.warning("waiting for the database with %s: %s", endings, exc)
        elif exc is None and was_short:
            logger.info("the database takes endings again")

    # Trying again

    def _after_refusal(self, entry: Ended) -> Ended:
        """Return what to write of an entry that was refused alone."""
        job, exc = entry.job, self._refusal
        if isinstance(exc, ConnectorException) and exc.sqlstate in IN_THE_WAY:
            logger.info("the ending of job %d waits for another transaction", job.id)
            return entry
        changed = self._without_refused(entry) if _is_about_values(exc) else entry
        if changed.outcome == entry.outcome:
            logger.error("the ending of job %d could not be written: %r", job.id, exc)
            return entry
        logger.warning(
            "the database refused a value in the ending of job %d, which is written without it or"
            " in ASCII: %r",
            *(job.id, exc),
        )
        if self.unwritten.get(job.id) is entry:
            self.unwritten[job.id] = changed
        return changed

    def _without_refused(self, entry: Ended) -> Ended:
        failed = self._failed_without_result(entry) if entry.outcome.result else None
        outcome = without_refused(entry.outcome, entry.job.attempts)
        return failed or replace(entry, outcome=outcome)

    def _hold(self, entries: Sequence[Ended]) -> None:
        self._waiting += len(entries)
        self._parts.hold(entries)

    def _try_later(self, entries: Sequence[Ended]) -> None:
        self._waiting += len(entries)
        asyncio.get_running_loop().call_later(REFUSED_AGAIN_AFTER, self._try_again, entries)

    def _try_again(self, entries: Sequence[Ended]) -> None:
        self._waiting -= len(entries)
        self._doubts.append(Doubtful(entries, halving.whole_first(entries)))
        self._something.set()


def _is_short(exc: Exception, *, alone: bool) -> bool:
    """Whether the server is short of something, and that is not because of a batch's length."""
    state = exc.sqlstate if isinstance(exc, ConnectorException) else None
    return state is not None and (state == DISK_FULL or (alone and state.startswith(SHORT)))


def _is_about_values(exc: Exception | None) -> bool:
    """Whether the server refused a value, or found it too large or too deep."""
    if isinstance(exc, InvalidData):
        return True
    return isinstance(exc, ConnectorException) and (exc.sqlstate or "").startswith("54")
