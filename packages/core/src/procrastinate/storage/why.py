"""The flow that tells why a job waits."""

from __future__ import annotations

from datetime import UTC, datetime

from procrastinate.drive import Flow, Request, at
from procrastinate.errors import JobNotFound
from procrastinate.model.job import Job
from procrastinate.model.monitoring.search import Count
from procrastinate.model.monitoring.why import Place, WaitReason, reasons
from procrastinate.model.partitions import Partitions
from procrastinate.storage.fleet import list_workers
from procrastinate.storage.jobs import get_job
from procrastinate.storage.places import found
from procrastinate.storage.queues import list_pauses
from procrastinate.storage.rows import in_utc

COUNTED = 5_000  # jobs before another one, of which there may be more


def why_waiting(job_id: int, partitions: Partitions) -> Flow[list[WaitReason]]:
    """Return the reasons why a job waits. Raises `JobNotFound`."""
    job = yield from found(job_id, partitions, get_job(job_id, lambda text: {}))
    if job is None:
        raise JobNotFound(f"there is no job {job_id}")
    place = yield from at(partitions.of_job(job), _place(job))
    workers = yield from list_workers()
    alive = [each for each in workers if each.is_alive]
    return reasons(job, place, alive, (yield from list_pauses()))


def _place(job: Job) -> Flow[Place]:
    rows = yield Request(
        "place_of_job",
        id=job.id,
        queue_name=job.queue,
        priority=job.priority,
        lock=job.lock,
        counted=COUNTED + 1,
    )
    if not rows:  # it was deleted a moment ago
        return Place(datetime.now(UTC), False, None, Count(0), None, None, Count(0))
    now, abort_requested, unknown_since, before, holder, first, in_line = rows[0]
    return Place(
        now.astimezone(UTC),
        bool(abort_requested),
        in_utc(unknown_since),
        _counted(before),
        holder,
        first,
        _counted(in_line),
    )


def _counted(value: int) -> Count:
    return Count(min(int(value), COUNTED), int(value) <= COUNTED)
