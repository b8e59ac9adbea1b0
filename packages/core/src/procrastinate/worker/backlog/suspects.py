"""Claimed jobs that have lost a worker before: whether they may start here, and when.

`procrastinate.model.liveness.blame` decides. Here is the one job that waits until its process is
empty.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Container, Iterable

from procrastinate.model.endings.outcome import UNSTARTED, Requeued
from procrastinate.model.job import Job
from procrastinate.model.liveness import blame
from procrastinate.model.liveness.blame import Place
from procrastinate.storage.finish import Ended
from procrastinate.worker import job_log
from procrastinate.worker.claimed import Claimed
from procrastinate.worker.writing.writer import Writer


class Suspects:
    """Sends jobs back that belong elsewhere, and holds the one that must run alone.

    ``on_change`` is called when jobs may be claimed again.
    """

    def __init__(self, writer: Writer, *, on_change: Callable[[], None]) -> None:
        self._writer = writer
        self._on_change = on_change
        self._waits: Claimed | None = None  # until the process is empty
        self._alone: int | None = None  # the id of the job that runs alone
        self._patience: asyncio.TimerHandle | None = None

    def __contains__(self, job_id: object) -> bool:
        return self._waits is not None and self._waits[0].id == job_id

    @property
    def waiting(self) -> list[Job]:
        """The job that waits until this process is empty, if there is one."""
        return [] if self._waits is None else [self._waits[0]]

    @property
    def is_waiting(self) -> bool:
        """Whether a job waits until this process is empty."""
        return self._waits is not None

    def reserve(self, held: Callable[[], Iterable[Job]]) -> bool:
        """Whether no job is to be claimed, because one waits to run alone or does (rule 4)."""
        if self._alone is not None and all(job.id != self._alone for job in held()):
            self._alone = None
        return self._waits is not None or self._alone is not None

    def in_order(self, jobs: Iterable[Job], *, empty: bool) -> list[Job]:
        """Return claimed jobs in the order in which to admit them.

        A job that must run alone comes first in an empty process, and else last.
        """
        return sorted(jobs, key=lambda job: blame.must_be_alone(job.crashes) is not empty)

    def admit(self, claimed: Claimed, held: Iterable[Job]) -> bool:
        """Return whether a job may take a slot beside those that the process holds."""
        job, _ = claimed
        crashes = [each.crashes for each in (*held, *self.waiting)]
        place = blame.place(job.crashes, crashes)
        if place is Place.ALONE:
            self._wait(claimed)
        elif place is Place.ELSEWHERE:
            self._send_back(job)
        elif blame.must_be_alone(job.crashes):
            self._alone = job.id
        return place is Place.HERE

    def take(self) -> Claimed | None:
        """Return the job that waited until the process is empty, to be started now."""
        waited = self._forget()
        if waited is not None:
            self._alone = waited[0].id
        return waited

    def forget(self, ids: Container[int]) -> None:
        """Let go of the job that waits if it is among these: it is not held by that claim."""
        if self._waits is not None and self._waits[0].id in ids:
            self._forget()

    def give_back(self) -> Job | None:
        """Hand back the job that waits, if one does, and return it."""
        waited = self._forget()
        if waited is None:
            return None
        job, _ = waited
        self._writer.add(Ended(job, UNSTARTED))
        self._on_change()
        return job

    def _wait(self, claimed: Claimed) -> None:
        self._waits = claimed
        job_log.waits_to_be_alone(claimed[0])
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(blame.WAIT_TO_BE_ALONE, self._give_up)

    def _forget(self) -> Claimed | None:
        waited, self._waits = self._waits, None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        return waited

    def _give_up(self) -> None:
        waited = self._forget()
        if waited is not None:
            self._send_back(waited[0])
            self._on_change()

    def _send_back(self, job: Job) -> None:
        """Send a suspect back for a while (rule 5); an innocent job keeps its place."""
        if not job.crashes:
            self._writer.add(Ended(job, UNSTARTED))
            return
        job_log.sent_back(job)
        delay = blame.delay(random.random())
        self._writer.add(Ended(job, Requeued(when=delay, begun=False)))
