"""Which jobs of a claim may wait for a slot here, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from procrastinate.errors import InvalidArguments
from procrastinate.model.endings.outcome import Requeued
from procrastinate.model.job import Job
from procrastinate.model.text import failure
from procrastinate.storage.finish import handed_back
from procrastinate.worker.helpers.pausing import Paused
from procrastinate.worker.running.slots import Slots
from procrastinate.worker.writing.writer import Writer


class Intake:
    """Sorts the jobs of a claim."""

    def __init__(self, slots: Slots, writer: Writer, paused: Paused) -> None:
        self._slots = slots
        self._running = slots.by_id
        self._writer = writer
        self._paused = paused

    def new_ones(self, claimed: Mapping[int, Job]) -> list[Job]:
        """Return those of the jobs of a claim that are not here already."""
        here, unwritten = self._running.keys(), self._writer.unwritten.keys()
        if claimed.keys().isdisjoint(here) and claimed.keys().isdisjoint(unwritten):
            return list(claimed.values())
        return [job for job in claimed.values() if not self._has_already(job)]

    def _has_already(self, job: Job) -> bool:
        """Continue a job under its new claim that still runs here, or whose ending is unwritten.

        Such a job was lost meanwhile and came back: this worker was taken for dead, or the server
        forgot the claim in a crash. A second run here would be in the way of the first.

        Not so a job whose outcome, still unconfirmed, sends it back to the queue: a lease of its
        own says that the outcome was written, so this is the next attempt.
        """
        if self._slots.goes_on(job):
            return True
        entry = self._writer.unwritten.get(job.id)
        if entry is None:
            return False
        if isinstance(entry.outcome, Requeued) and entry.job.lease != job.lease:
            return False
        self._writer.add(replace(entry, job=job))
        return True

    def startable(self, jobs: list[Job], unreadable: Mapping[int, BaseException]) -> list[Job]:
        """Return those of the new jobs that may start, and see to the others."""
        if self._paused.now:
            jobs = self._unpaused(jobs)
        return self._readable(jobs, unreadable) if unreadable else jobs

    def _unpaused(self, jobs: Iterable[Job]) -> list[Job]:
        """Hand back the jobs of paused queues, and return the others."""
        kept = []
        for job in jobs:
            if self._paused.has(job.queue):
                self._writer.add(handed_back(job))
            else:
                kept.append(job)
        return kept

    def _readable(self, jobs: Iterable[Job], unreadable: Mapping[int, BaseException]) -> list[Job]:
        """Let the jobs fail whose arguments cannot be read, and return the others."""
        readable = []
        for job in jobs:
            if job.id in unreadable:
                self._slots.start(job, _unreadable(unreadable[job.id]))
            else:
                readable.append(job)
        return readable


def _unreadable(broken: BaseException) -> InvalidArguments:
    return InvalidArguments(f"json_loads failed: {failure.headline_of(broken)}")
