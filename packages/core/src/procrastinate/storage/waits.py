"""Flows of those who wait for the ends of jobs, and of those who look until a job has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from procrastinate.connector import Row
from procrastinate.drive import Flow, Request, at
from procrastinate.model.job import Job, Status
from procrastinate.model.partitions import Partitions
from procrastinate.storage.jobs import get_job
from procrastinate.storage.places import grouped
from procrastinate.storage.rows import Loads

#: Where the ids of ended jobs are heard; see the fragments that notify.
CHANNEL = "procrastinate_ends_{waiter}"


def register_waits(ids: Sequence[int], *, waiter: int, lasting_us: int) -> Flow[None]:
    """Enter that a process waits for jobs of one partition; the rows are void after so long."""
    yield Request("register_waits", ids=list(ids), waiter=waiter, lasting_us=lasting_us)


def remove_waits(ids: Sequence[int], *, waiter: int) -> Flow[None]:
    """Remove the rows of a process for jobs of one partition."""
    yield Request("remove_waits", ids=list(ids), waiter=waiter)


def look_at_jobs(ids: Sequence[int]) -> Flow[dict[int, Status]]:
    """Return the status of those of these jobs, of one partition, that are there."""
    rows = yield Request("look_at_jobs", ids=list(ids))
    return {int(row[0]): Status(row[1]) for row in rows}


def read_jobs(ids: Sequence[int]) -> Flow[dict[int, tuple[Status, Row]]]:
    """Return, of jobs of one partition, those that are there: their status, and the whole row.

    Who waits for a job makes it of the row (`procrastinate.storage.rows.job_from`), as to decode
    it calls the user's function.
    """
    rows = yield Request("read_jobs", ids=list(ids))
    return {int(row[0]): (Status(row[1]), row[2:]) for row in rows}


def places_of(ids: Sequence[int], partitions: Partitions) -> Flow[dict[int, int]]:
    """Return the partition of each of these jobs, whose ids do not say it, if it is there."""
    places = yield from grouped(ids, partitions)
    return {job_id: partition for partition, some in places.items() for job_id in some}


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found: whether the job is there, and the job if it has ended."""

    is_there: bool
    job: Job | None = None


def look(job_id: int, partitions: Partitions, loads: Loads) -> Flow[Look]:
    """Look whether a job has ended; if so, read it whole."""
    places = yield from grouped([job_id], partitions)
    for partition in places:
        return (yield from at(partition, _look(job_id, loads)))
    return Look(is_there=False)


def _look(job_id: int, loads: Loads) -> Flow[Look]:
    status = (yield from look_at_jobs([job_id])).get(job_id)
    if status is None or not status.is_final:
        return Look(is_there=status is not None)
    job = yield from get_job(job_id, loads)
    has_ended = job is not None and job.status.is_final  # else it was retried since, or removed
    return Look(is_there=True, job=job if has_ended else None)


def prune_waits() -> Flow[None]:
    """Remove the rows of processes that went away without removing them."""
    for (partition,) in (yield Request("any_expired_waits")):
        yield from at(int(partition), _prune())


def _prune() -> Flow[None]:
    yield Request("prune_waits")
