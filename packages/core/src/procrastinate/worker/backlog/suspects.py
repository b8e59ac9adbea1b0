"""Claimed jobs that have lost a worker before: whether they may start here, and when.

`procrastinate.model.liveness.blame` decides. Here is the one suspect that waits: until what ended
or went back before is written, and, if it must run alone, until its process is empty.
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
        self._waits: Claimed | None = None  # the suspect that has not started yet
        self._unwritten: set[int] | None = None  # jobs whose outcomes it waits for, if known
        self._alone: int | None = None  # the id of the job that runs alone
        self._patience: asyncio.TimerHandle | None = None

    def __contains__(self, job_id: object) -> bool:
        return self._waits is not None and self._waits[0].id == job_id

    @property
    def waiting(self) -> list[Job]:
        """The suspect that waits, if there is one."""
        return [] if self._waits is None else [self._waits[0]]

    @property
    def is_waiting(self) -> bool:
        """Whether a suspect waits."""
        return self._waits is not None

    def reserve(self, held: Callable[[], Iterable[Job]]) -> bool:
        """Whether no job is to be claimed, because one waits to run alone or does (rule 4)."""
        if self._alone is not None and all(job.id != self._alone for job in held()):
            self._alone = None
        return self._alone is not None or self._waits_alone()

    def _waits_alone(self) -> bool:
        return self._waits is not None and blame.must_be_alone(self._waits[0].crashes)

    def in_order(self, jobs: Iterable[Job], *, empty: bool) -> list[Job]:
        """Return claimed jobs in the order in which to admit them.

        A job that must run alone comes first in an empty process, and else last.
        """
        return sorted(jobs, key=lambda job: blame.must_be_alone(job.crashes) is not empty)

    def admit(self, claimed: Claimed, held: Iterable[Job]) -> bool:
        """Return whether a job may take a slot now, beside those that the process holds."""
        job, _ = claimed
        crashes = [each.crashes for each in (*held, *self.waiting)]
        place = blame.place(job.crashes, crashes)
        if place is Place.HERE and not blame.is_suspect(job.crashes):
            return True
        if place is Place.ELSEWHERE or self.is_waiting:
            self._send_back(job)
        else:
            self._wait(claimed)
            if place is Place.ALONE:
                job_log.waits_to_be_alone(job)
        return False

    def wait_for_writes(self) -> None:
        """Let the suspect wait for what is unwritten now. All that goes back has been added."""
        if self._waits is not None and self._unwritten is None:
            self._unwritten = self._writer.on_the_way()

    def may_start(self, *, empty: bool) -> bool:
        """Whether the suspect that waits may start; ``empty`` if no other job is here.

        A job that must be alone waits for all outcomes, because the process must hold nothing.
        Others wait for those that were unwritten when they came: later ones have no end.
        """
        if self._waits_alone():
            return empty and not len(self._writer)
        return self._unwritten is not None and self._unwritten.isdisjoint(self._writer.unwritten)

    def take(self) -> Claimed | None:
        """Return the suspect that waited, to be started now."""
        waited = self._forget()
        if waited is not None and blame.must_be_alone(waited[0].crashes):
            self._alone = waited[0].id
        return waited

    def forget(self, ids: Container[int]) -> None:
        """Let go of the job that waits if it is among these: it is not held by that claim."""
        if self._waits is not None and self._waits[0].id in ids:
            self._forget()

    def give_back(self) -> None:
        """Hand back the job that waits, if one does."""
        waited = self._forget()
        if waited is not None:
            self._writer.add(Ended(waited[0], UNSTARTED))
            self._on_change()

    def _wait(self, claimed: Claimed) -> None:
        self._waits = claimed
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(blame.WAIT_TO_BE_ALONE, self._give_up)

    def _forget(self) -> Claimed | None:
        waited, self._waits, self._unwritten = self._waits, None, None
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
