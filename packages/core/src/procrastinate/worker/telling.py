"""Telling observers what one worker does: its log is the first of them.

Rules

1. Nothing here raises, and an event that no observer sees is not made.
2. What becomes of a job is told once it is written, and as it was written. If only the answer to a
   write was lost, the next one shows it.
3. An observer that empties a list would take jobs from the worker: it gets tuples.
4. What ends is counted while the server works on the worker's next message (`meanwhile`). The jobs
   behind a lock wait for nothing else. Without a message it is counted at the next `tick`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from procrastinate.model.endings.outcome import (
    LOST_TYPE,
    UNKNOWN_TYPE,
    WHY_LOST,
    WHY_UNKNOWN,
    Finished,
    was_written,
)
from procrastinate.model.job import Job, Status
from procrastinate.model.queues import Pause
from procrastinate.observing import events, job_log
from procrastinate.observing.job_log import JobLog
from procrastinate.observing.observer import Observer
from procrastinate.observing.observers import NOBODY, Around, Observers, interrupt_main
from procrastinate.storage import periodic
from procrastinate.storage.finish import Ended, Settled
from procrastinate.storage.periodic import Outcome
from procrastinate.storage.workers import Recovered
from procrastinate.worker.log import logger
from procrastinate.worker.process import forks

_ALONE = {Status.SUCCEEDED}


class Counting(Observer):
    """An observer that only notes what has ended, and counts it later (rule 4)."""

    def count(self) -> None:
        """Count what has ended since the last time."""


class Telling:
    """Tells the observers of one worker, among them the log unless ``log_jobs`` is ``none``.

    ``counting`` is what counts the endings of each minute.
    """

    def __init__(
        self,
        observers: Observers = NOBODY,
        worker_name: str = "",
        worker_id: int = 0,
        log_jobs: str = "none",
        counting: Counting | None = None,
    ) -> None:
        self._counting = counting
        self._who = worker_name, worker_id
        self._log: JobLog | None = None
        watching: list[Observer] = list(observers.given)
        if log_jobs != "none":
            self._log = JobLog(worker_name, worker_id, sampled=log_jobs == "sampled")
            watching.insert(0, self._log)
        if counting is not None:
            watching.append(counting)
        self._observers = all_ = Observers(watching, interrupt=interrupt_main)
        self._users = observers
        #: Whether an observer sees that attempts start; the log does at DEBUG alone.
        self.sees_starts = False
        #: Whether `around_attempt` is to be entered.
        self.has_around = all_.sees("around_attempt")
        self._busy = 0  # as observers know
        self._concurrency = 0
        self._sees_claims = all_.sees("on_claimed")
        self._sees_raised = all_.sees("on_raised")
        self._sees_ends = all_.sees("on_ended", "on_requeued", "on_lease_lost")
        self.tick()

    def tick(self, *, last: bool = False) -> None:
        """Do what is due a few times a second; at the ``last`` time, all that is left."""
        try:
            self.sees_starts = self._users.sees("on_started") or (
                self._log is not None and job_log.logger.isEnabledFor(logging.DEBUG)
            )
            if self._log is not None:
                self._log.sum_up(time.monotonic(), at_once=last)
        except BaseException:  # rule 1
            logger.exception("the log of jobs failed")
        self._count()

    def meanwhile(self) -> None:
        """Count at the loop's next turn: the caller sends a message before that (rule 4)."""
        if self._counting is not None:
            asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        try:
            if self._counting is not None:
                self._counting.count()
        except BaseException:  # rule 1
            logger.exception("what has ended could not be counted")

    # The worker

    def worker_started(self, queues: Sequence[str] | None, concurrency: int) -> None:
        """Tell that the worker is registered, and begins."""
        self._concurrency = concurrency
        self._tell("on_worker_started", events.WorkerStarted, queues, concurrency)

    def worker_stopped(self) -> None:
        """Tell that the worker has ended."""
        self.tick(last=True)
        self.busy(0, self._concurrency)
        self._tell("on_worker_stopped", events.WorkerStopped)

    def recovered(self, jobs: Sequence[Recovered]) -> None:
        """Tell that jobs of dead workers were taken over, and which of them have ended."""
        if jobs:
            self._tell("on_recovered", events.Recovered, jobs)
            self._ended_without_attempt(jobs, LOST_TYPE, _why_lost)

    def given_up(self, jobs: Sequence[Recovered]) -> None:
        """Tell that jobs have failed because no worker knows their task."""
        self._ended_without_attempt(jobs, UNKNOWN_TYPE, lambda _: WHY_UNKNOWN)

    def _ended_without_attempt(
        self, jobs: Sequence[Recovered], type_: str, why: Callable[[Status], str]
    ) -> None:
        ended = [
            Ended(
                Job(each.job_id, Status.DOING, each.queue, each.task_name, {}),
                Finished(each.status, {"type": type_, "message": why(each.status)}),
            )
            for each in jobs
            if each.status.is_final
        ]
        if ended:
            self._tell("on_ended", events.Ended, ended)

    def busy(self, busy: int, concurrency: int) -> None:
        """Tell how many slots have a job, if that has changed."""
        if busy != self._busy:
            self._busy = busy
            self._tell("on_busy", events.Busy, busy, concurrency)

    def paused(self, queue: str, pause: Pause | None) -> None:
        """Tell that the worker starts no more jobs of a queue, or starts them again (None)."""
        self._tell("on_paused", events.Paused, queue, pause)

    # Jobs

    def ticks_settled(self, settled: Sequence[periodic.Settled]) -> None:
        """Tell of the jobs of periodic tasks that were inserted; from any thread."""
        found = [
            (each.due.job, each.job_id)
            for each in settled
            if each.outcome is Outcome.DEFERRED and each.due.job and each.job_id is not None
        ]
        if found and self._users.sees_defers:
            jobs, ids = zip(*found, strict=True)
            self._call("on_deferred", events.Deferred(jobs, ids, in_transaction=False))

    def claimed(self, jobs: Sequence[Job]) -> None:
        """Tell that jobs were claimed."""
        if self._sees_claims and jobs:
            self._tell("on_claimed", events.Claimed, jobs)

    def started(self, jobs: Sequence[Job]) -> None:
        """Tell that jobs have got their slots. Ask `sees_starts` first."""
        self._tell("on_started", events.Started, jobs)

    def raised(self, entry: Ended, exception: BaseException) -> None:
        """Tell that an attempt raised, and what is to be written of that."""
        if self._sees_raised and entry.error is not None:
            about = (entry.job, exception, entry.status, entry.duration or 0.0, entry.error)
            self._tell("on_raised", events.Raised, *about)

    def around_attempt(self, job: Job) -> Around:
        """Return what is to be entered around an attempt's code."""
        return self._observers.around("around_attempt", job)

    def lost(self, jobs: Sequence[Job]) -> None:
        """Tell that jobs are no longer this worker's."""
        if jobs:
            self._tell("on_lease_lost", events.LeaseLost, jobs)

    def written(self, entries: Sequence[Ended], settled: Settled) -> None:
        """Tell what a write has made of attempts (rule 2)."""
        if not self._sees_ends:
            return
        try:
            self._written(entries, settled)
        except BaseException:  # rule 1
            logger.exception("observers could not be told of %d endings", len(entries))

    def _written(self, entries: Sequence[Ended], settled: Settled) -> None:
        changed = settled.changed
        statuses = {each.outcome.status for each in entries}
        if len(changed) == len(entries) and statuses.union(changed.values()) == _ALONE:
            self._tell("on_ended", events.Ended, entries)  # most often
            return
        ended: list[Ended] = []
        requeued: list[Ended] = []
        lost: list[Job] = []
        for entry in entries:
            status = changed.get(entry.job.id)
            if status is not entry.outcome.status:  # most often it is
                if entry.job.id in changed:
                    entry = as_written(entry, status)
                elif not was_written(entry.job, settled.standings.get(entry.job.id)):
                    lost.append(entry.job)
                    continue
            (requeued if entry.outcome.status is Status.TODO else ended).append(entry)
        if ended:
            self._tell("on_ended", events.Ended, ended)
        if requeued:
            self._tell("on_requeued", events.Requeued, requeued)
        self.lost(lost)

    def _tell(self, hook: str, kind: Callable[..., object], *about: object) -> None:
        try:
            own = (tuple(each) if type(each) is list else each for each in about)  # rule 3
            self._call(hook, kind(*self._who, *own))
        except BaseException:  # rule 1
            logger.exception("observers could not be told of an event")

    def _call(self, hook: str, event: object) -> None:
        generation = forks.Process.generation
        self._observers.tell(hook, event)
        forks.end_if_forked(generation)


def as_written(entry: Ended, status: Status | None) -> Ended:
    """Return an entry with the status that its job got; None: it was removed, as it had ended."""
    if status is None or status is entry.outcome.status:
        return entry
    return replace(entry, outcome=Finished(status, entry.outcome.error))


def _why_lost(status: Status) -> str:
    return WHY_LOST[status].replace(" {crashes} times", "")  # how often, the row says


UNSEEN = Telling()
