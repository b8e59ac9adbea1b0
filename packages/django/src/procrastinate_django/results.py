"""A job as Django's TaskResult."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.module_loading import import_string

from procrastinate import Job, JobWasAborted, JobWasCancelled
from procrastinate.model.job import Status as JobStatus
from procrastinate_django.djangos import (
    DEFAULT_TASK_BACKEND_ALIAS,
    InvalidTask,
    Status,
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    changed,
)
from procrastinate_django.known import declared

_STATUS: Mapping[JobStatus, Any] = {
    JobStatus.TODO: Status.READY,
    JobStatus.DOING: Status.RUNNING,
    JobStatus.SUCCEEDED: Status.SUCCESSFUL,
    JobStatus.FAILED: Status.FAILED,
    JobStatus.CANCELLED: Status.FAILED,
    JobStatus.ABORTED: Status.FAILED,
}
_ENDINGS = {JobStatus.CANCELLED: JobWasCancelled, JobStatus.ABORTED: JobWasAborted}
_UNKNOWN = "unknown"


def is_of_backend(job: Job, alias: str) -> bool:
    """Return whether a job is a task of Django's that a backend has enqueued."""
    kwargs = job.task_kwargs
    if not {"args", "kwargs"} <= set(kwargs):
        return False
    return bool(kwargs.get("backend", DEFAULT_TASK_BACKEND_ALIAS) == alias)


def result_of(job: Job, alias: str) -> Any:
    """Return the result that a job stands for. Raises ``TaskResultDoesNotExist``."""
    attempts = max(job.attempts, int(job.started_at is not None and job.status != JobStatus.TODO))
    result = TaskResult(
        task=_task_of(job, alias),
        id=str(job.id),
        status=_STATUS[job.status],
        enqueued_at=_read(job.task_kwargs.get("enqueued_at")) or _in_zone(job.deferred_at),
        # A job in a task's own context does not say when its first attempt began.
        started_at=_in_zone(job.first_started_at or job.started_at),
        finished_at=_in_zone(job.finished_at),
        last_attempted_at=_in_zone(job.started_at),
        args=job.task_kwargs["args"],
        kwargs=job.task_kwargs["kwargs"],
        backend=alias,
        errors=errors_of(job),
        # The job knows its last worker only, and each start has an entry.
        worker_ids=[_UNKNOWN if job.worker is None else str(job.worker)] * attempts,
    )
    return changed(result, _return_value=job.result) if job.has_result else result


def _read(moment: str | None) -> datetime | None:
    return None if moment is None else datetime.fromisoformat(moment)


def _in_zone(moment: datetime | None) -> datetime | None:
    if moment is None or settings.USE_TZ:
        return moment
    return timezone.make_naive(moment)


def _task_of(job: Job, alias: str) -> Any:
    task = _known_task(job)
    said = {
        "priority": job.priority,
        "queue_name": job.queue,
        "backend": alias,
        "run_after": _read(job.task_kwargs.get("run_after")),
    }
    try:
        return task.using(**said)
    except InvalidTask as exc:
        raise TaskResultDoesNotExist(
            f"the job {job.id} is no task of this backend any more: {exc}"
        ) from exc


def _known_task(job: Job) -> Any:
    known = declared(job.task_name)
    if known is not None:
        return known.task
    try:
        task = import_string(job.task_name)
    except ImportError as exc:
        raise TaskResultDoesNotExist(f"the task of job {job.id} cannot be imported: {exc}") from exc
    if not isinstance(task, Task):
        raise TaskResultDoesNotExist(f"{job.task_name}, of job {job.id}, is no task of Django's")
    return task


def errors_of(job: Job) -> list[Any]:
    """Return the errors of all attempts; a job that was cancelled or aborted has one more."""
    errors = [
        TaskError(exception_class_path=_path(each), traceback=str(each.get("traceback") or ""))
        for each in job.errors
    ]
    ending = _ENDINGS.get(job.status)
    if ending is not None:
        said = f"the job {job.id} was {job.status.value}"
        errors.append(error_of(ending, said))
    return errors


def error_of(kind: type[BaseException], traceback: str) -> Any:
    """Return an error of a class, with this for its traceback."""
    return TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=traceback
    )


def _path(error: Mapping[str, Any]) -> str:
    name = str(error.get("type") or "Exception")
    return name if "." in name else f"builtins.{name}"
