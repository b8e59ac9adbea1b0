"""From rows to values and back: the one place that knows the order of the job columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from procrastinate import json_codec
from procrastinate.connector import Row
from procrastinate.errors import InvalidArguments
from procrastinate.model.job import Error, Job, Status
from procrastinate.model.text.failure import message_of
from procrastinate.storage.readable import for_results

Loads = Callable[[str], Any]

UNREADABLE_RESULT = "the result was kept, but cannot be decoded"
ARGS = 3  # the place of the arguments, as JSON
CRASHES = 11  # the place of the crashes: null for most
_DOING = Status.DOING  # looking a member up in its class takes a call before Python 3.12
_STATUS = {status.value: status for status in Status}
_new = object.__new__


def job_from(row: Row, loads: Loads) -> Job:
    """Return the job that a row of the ``job_columns`` fragment holds."""
    *_, errors, status, started_at, finished_at, worker_id, result, result_error, hold, first = row
    job = claimed_job(row, loads(row[ARGS]), worker_id, in_utc(started_at))
    job.__dict__.update(
        status=_STATUS[status],
        hold=hold,
        first_started_at=in_utc(first),
        finished_at=in_utc(finished_at),
        errors=errors_from(errors),
    )
    if result is not None or result_error is not None:
        job.__dict__.update(_result_from(result, result_error, for_results(loads)))
    return job


def _result_from(text: str | None, error: str | None, loads: Loads) -> dict[str, Any]:
    """Return what a job knows of what its task returned, from the JSON text of that."""
    if text is None:
        return {"result_error": error}
    try:
        result = loads(text)
    except Exception as exc:  # a json_loads of the user's own may raise anything
        return {"result_error": f"{UNREADABLE_RESULT}: {_why_undecoded(exc)}"}
    return {"result": result, "has_result": True}


def _why_undecoded(exc: Exception) -> str:
    decoder_raised = exc.__cause__ if isinstance(exc, InvalidArguments) else None
    return message_of(decoder_raised or exc)


def errors_from(text: str | None) -> list[Error]:
    """Return the errors of a job from their JSON text, whatever was made of it by hand."""
    if text is None:
        return []
    try:
        errors = json_codec.loads(text)
    except (ValueError, RecursionError) as exc:
        return [{"type": type(exc).__name__, "message": "the errors of this job cannot be decoded"}]
    entries = errors if isinstance(errors, list) else [errors]
    return [each if isinstance(each, dict) else {"message": str(each)} for each in entries]


def _meta_from(text: str) -> dict[str, Any] | None:
    """Return what observers gave a job from its JSON text. None if it is no object, or unreadable.

    SQL written by hand may have put anything there, and no job must suffer from that.
    """
    try:
        meta = json_codec.loads(text)
    except (ValueError, RecursionError):
        return None
    return meta if isinstance(meta, dict) else None


def claimed_job(
    row: Row, task_kwargs: Any, worker_id: int | None, started_at: datetime | None
) -> Job:
    """Return the job of a row that begins with the ``claimed_columns``, as its worker got it.

    It has no errors yet: see `errors_read_by`.

    A worker makes one for each job that it runs. The ``__init__`` of a frozen dataclass sets each
    of its fields by a call, and the fields that are not set here have their defaults.
    """
    job: Any = _new(Job)
    job.id = row[0]
    job.status = _DOING
    job.queue = row[1]
    job.task_name = row[2]
    job.task_kwargs = task_kwargs
    job.priority = row[4]
    job.lock = row[5]
    job.queueing_lock = row[6]
    job.attempts = row[7]
    deferred_at = row[8]  # in UTC already, most often: to ask takes less than the call
    is_known = deferred_at is None or deferred_at.tzinfo is UTC
    job.deferred_at = deferred_at if is_known else in_utc(deferred_at)
    job.scheduled_at = None if row[9] is None else in_utc(row[9])
    job.started_at = started_at
    job.worker = worker_id
    job.lease = row[10]
    job.crashes = row[11] or 0
    job.meta = None if row[12] is None else _meta_from(row[12])
    claimed: Job = job
    return claimed


def jobs_from(rows: Sequence[Row], loads: Loads) -> list[Job]:
    """Return the jobs of many rows, in their order."""
    return [job_from(row, loads) for row in rows]


def in_utc(moment: datetime | None) -> datetime | None:
    """Return the same moment in UTC."""
    return moment if moment is None or moment.tzinfo is UTC else moment.astimezone(UTC)
