"""Flows about how far running jobs say that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from procrastinate.connector import Row
from procrastinate.drive import Flow, Request, at
from procrastinate.model.job import Job, Status
from procrastinate.model.progress import WHOLE, Progress, Report
from procrastinate.storage.rows import Loads, in_utc


@dataclass(frozen=True, slots=True)
class Said:
    """What an attempt has reported; its lease says which attempt that was."""

    job_id: int
    lease: int
    report: Report


def write(said: Sequence[Said], *, now: float, worker_id: int) -> Flow[None]:
    """Write what this worker's running jobs have reported.

    ``now`` is what the clock of the reports says: the server is told their ages.
    """
    reports = [each.report for each in said]
    yield Request(
        "report_progress",
        ids=[each.job_id for each in said],
        leases=[each.lease for each in said],
        millionths=[each.millionths for each in reports],
        messages=[each.message for each in reports],
        data=[each.data for each in reports],
        ages_us=[int((now - each.said_at) * 1e6) for each in reports],
        worker_id=worker_id,
    )


def forget(leases: Mapping[int, int]) -> Flow[None]:
    """Remove the reports of attempts that are over, by the ids of their jobs."""
    yield Request("forget_progress", ids=list(leases), leases=list(leases.values()))


def prune() -> Flow[None]:
    """Remove what no running attempt has reported, in all partitions or in one."""
    for (partition,) in (yield Request("reported_partitions")):
        yield from at(partition, _prune_partition())


def _prune_partition() -> Flow[None]:
    yield Request("prune_progress")


def with_progress_of_one(flow: Flow[Job | None], loads: Loads) -> Flow[Job | None]:
    """Run a flow that returns a job, and read how far it is, if it runs."""
    job = yield from flow
    if job is not None:
        yield from read([job], loads)
    return job


def with_progress(flow: Flow[list[Job]], loads: Loads) -> Flow[list[Job]]:
    """Run a flow that returns jobs, and read how far those are that run."""
    jobs = yield from flow
    yield from read(jobs, loads)
    return jobs


def read(jobs: Sequence[Job], loads: Loads) -> Flow[None]:
    """Give running jobs their progress, as far as it can be read: a standby does not have it."""
    running = {job.id: job for job in jobs if job.status is Status.DOING}
    if not running or not (yield Request("sees_progress"))[0][0]:
        return
    for job_id, lease, *said in (yield Request("list_progress", ids=list(running))):
        job = running[job_id]
        if lease == job.lease:
            job.__dict__["progress"] = _progress_from(said, loads)


def _progress_from(said: Row | list[Any], loads: Loads) -> Progress:
    millionths, message, data, updated_at = said
    given = {} if data is None else loads(data)
    return Progress(
        millionths / WHOLE,
        message,
        given if isinstance(given, dict) else {},
        in_utc(updated_at),
    )
