"""What it means that a job has ended, for those who waited for it: its result, or an error.

Every message names the job by its id and, if it is known, by its task.
"""

from __future__ import annotations

from typing import Any

from procrastinate.errors import (
    InvalidOption,
    JobFailed,
    JobNotFound,
    JobUnsuccessful,
    JobWasAborted,
    JobWasCancelled,
    ResultLost,
    ResultNotKept,
)
from procrastinate.model.job import Job, Status
from procrastinate.model.text import failure, printable

NAME_SHOWN, ERROR_SHOWN = 200, 500  # characters

_UNSUCCESSFUL: dict[Status, tuple[type[JobUnsuccessful], str]] = {
    Status.FAILED: (JobFailed, "has failed"),
    Status.CANCELLED: (JobWasCancelled, "was cancelled"),
    Status.ABORTED: (JobWasAborted, "was aborted"),
}


def value_of(job: Job) -> Any:
    """Return what the task of a job returned.

    Raises TimeoutError if the job has not ended, a `JobUnsuccessful` if it did not succeed, and
    `ResultNotKept`.
    """
    if not job.status.is_final:
        raise TimeoutError(f"{_named(job)} has not ended: its status is {job.status}")
    if job.status is not Status.SUCCEEDED:
        raise unsuccessful(job)
    if job.result_error is not None:
        reason = printable.line(str(job.result_error), ERROR_SHOWN)
        raise ResultNotKept(f"{_named(job)} has succeeded, but there is no result: {reason}")
    if not job.has_result:
        raise ResultNotKept(
            f"{_named(job)} has succeeded, but its result was not kept: register the task with"
            " result=True"
        )
    return job.result


def unsuccessful(job: Job) -> JobUnsuccessful:
    """Return the error for a job that has ended without success."""
    kind, happened = _UNSUCCESSFUL[job.status]
    error = _last_error(job)
    message = f"{_named(job)} {happened}"
    if error is not None:  # of a cancelled job, it is about an earlier attempt
        before = "; its last error: " if job.status is Status.CANCELLED else ": "
        message += before + error
    return kind(message, job)


def not_visible(job_id: int) -> JobNotFound:
    """Return the error for a job that was not there when the wait began."""
    return JobNotFound(
        f"there is no job {job_id} to wait for: it was removed, or the transaction that deferred it"
        " is not committed. Commit first"
    )


def removed(job_id: int) -> ResultLost:
    """Return the error for a job that was there, and was removed while it was waited for."""
    return ResultLost(
        f"job {job_id} was removed while it was waited for, so its end is not known. A worker with"
        " `delete_jobs` removes the jobs of tasks without result=True as they end"
    )


def not_in_time(job_id: int, timeout: float) -> TimeoutError:
    """Return the error for a wait that is over before the job; ``timeout`` is seconds."""
    within = f" within {timeout:g} s" if timeout > 0 else ""
    return TimeoutError(f"job {job_id} has not ended{within}; it stays as it is")


def not_kept_by(task_name: str) -> ResultNotKept:
    """Return the error for a task that keeps no result, so that no wait can give one."""
    name = printable.line(task_name, NAME_SHOWN)
    return ResultNotKept(
        f"task {name} keeps no results: register it with result=True, or wait for the end of its"
        " jobs only, with app.job_manager.wait_until_ended(id)"
    )


def of_another_task(job: Job, task_name: str) -> InvalidOption:
    """Return the error for a wait through one task for a job of another one."""
    name = printable.line(task_name, NAME_SHOWN)
    return InvalidOption(
        f"{_named(job)} is no job of task {name}: wait for it through its own task, or with"
        " app.wait_for(id)"
    )


def _named(job: Job) -> str:
    return f"job {job.id} of task {printable.line(job.task_name, NAME_SHOWN)}"


def _last_error(job: Job) -> str | None:
    """Return type and message of the last error as one line; by hand, anything may stand there."""
    error = job.errors[-1] if job.errors else None
    if not isinstance(error, dict):
        return None
    text = failure.headline(error.get("type"), error.get("message"))
    return printable.line(text, ERROR_SHOWN) or None
