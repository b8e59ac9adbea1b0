"""From rows to values and back: the one place that knows the order of the job columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from procrastinate import json_codec
from procrastinate.connector import Row
from procrastinate.model.job import Job, Status

Loads = Callable[[str], Any]

_STATUS = {status.value: status for status in Status}


def job_from(row: Row, loads: Loads) -> Job:
    """Return the job that a row of the ``job_columns`` fragment holds."""
    return job_with(row, loads(row[4]))


def job_with(row: Row, task_kwargs: Any) -> Job:
    """Return the same with arguments that were decoded already."""
    job = _blank()
    job.__dict__.update(
        id=row[0],
        status=_STATUS[row[1]],
        queue=row[2],
        task_name=row[3],
        task_kwargs=task_kwargs,
        priority=row[5],
        lock=row[6],
        queueing_lock=row[7],
        attempts=row[8],
        deferred_at=_utc(row[9]),
        scheduled_at=_utc(row[10]),
        started_at=_utc(row[11]),
        finished_at=_utc(row[12]),
        worker=row[13],
        errors=[] if row[14] is None else json_codec.loads(row[14]),
        attempts_forgiven=row[15] or 0,
    )
    return job


CLAIMED_ARGS = 3  # the place of the arguments, as JSON, among the ``claimed_columns``


def claimed_job(row: Row, task_kwargs: Any, worker_id: int) -> Job:
    """Return the job that a row of ``claimed_columns`` holds, with arguments decoded already."""
    job = _blank()
    job.__dict__.update(
        id=row[0],
        status=Status.DOING,
        queue=row[1],
        task_name=row[2],
        task_kwargs=task_kwargs,
        priority=row[4],
        lock=row[5],
        queueing_lock=row[6],
        attempts=row[7],
        deferred_at=_utc(row[8]),
        scheduled_at=_utc(row[9]),
        started_at=_utc(row[10]),
        finished_at=None,
        worker=worker_id,
        errors=[] if row[11] is None else json_codec.loads(row[11]),
        attempts_forgiven=row[12] or 0,
    )
    return job


def _blank() -> Job:
    """A job whose dict is still to be filled.

    A worker makes one for each job that it runs. The ``__init__`` of a frozen dataclass sets each
    of its fields by a call, which takes 5 µs for a job; filling its dict takes 1.5.
    """
    return object.__new__(Job)


def jobs_from(rows: Sequence[Row], loads: Loads) -> list[Job]:
    """Return the jobs of many rows, in their order."""
    return [job_from(row, loads) for row in rows]


def _utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo is UTC else moment.astimezone(UTC)
