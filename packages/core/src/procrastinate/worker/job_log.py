"""What the log says about single jobs.

Rules

1. Nothing here raises.
2. Texts that come from a task are those that are stored with the job: capped, and not formatted
   again. They are escaped, so that they cannot forge or hide lines of a log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from procrastinate.model import failure, printable
from procrastinate.model.job import Job, Status
from procrastinate.worker.log import logger

_SAID = {
    Status.TODO: (logging.WARNING, "failed, and will be tried again"),
    Status.FAILED: (logging.ERROR, "failed"),
    Status.ABORTED: (logging.INFO, "was aborted"),
}


def ended(job: Job, status: Status, error: Mapping[str, Any], exception: BaseException) -> None:
    """Say that an attempt did not succeed, and what becomes of the job."""
    level, what = _SAID[status]
    message = printable.line(f"{_short(error['type'])}: {error['message']}")
    extra = _about(job, "job_ended", status=status.value)
    if level < logging.ERROR:
        logger.log(level, "%s %s: %s", job.call_string, what, message, extra=extra)
        return
    logger.failure(
        *(level, "%s %s: %s", job.call_string, what, message),
        exception=exception,
        traceback=error["traceback"],
        extra=extra,
    )
    broken_strategy = error.get("retry_error")
    if broken_strategy is not None:
        _retry_strategy_failed(job, broken_strategy)


def _short(type_name: str) -> str:
    return type_name.rpartition(".")[2]


def _retry_strategy_failed(job: Job, error: Mapping[str, Any]) -> None:
    logger.error(
        "%s is not tried again because its retry strategy failed:\n%s",
        job.call_string,
        printable.block(error["traceback"]),
        extra=_about(job, "retry_strategy_failed"),
    )


def result_not_kept(job: Job, why: str) -> None:
    """Say that a job has succeeded without the result that its task is to keep."""
    logger.warning(
        "%s has succeeded, but %s", job.call_string, why, extra=_about(job, "result_not_kept")
    )


def waited_too_long(count: int) -> None:
    """Say that jobs claimed ahead go back to the queue because no slot was free in time."""
    logger.debug("handing back %s claimed ahead", printable.counted(count, "job"))


def undescribed(job: Job, broken: BaseException) -> None:
    """Say that an attempt's ending could not be told in full, and what prevented it."""
    logger.error(
        "%s ended, but what it ended with could not be told: %s: %s",
        job.call_string,
        printable.line(failure.type_name(broken)),
        printable.line(failure.message_of(broken)),
        extra=_about(job, "job_undescribed"),
    )


def no_task(job: Job, broken: BaseException) -> None:
    """Say that the loop's task factory failed, and that the job runs without it."""
    logger.warning(
        "%s runs in a plain task because the event loop's task factory failed: %s: %s",
        job.call_string,
        printable.line(failure.type_name(broken)),
        printable.line(failure.message_of(broken)),
        extra=_about(job, "task_factory_failed"),
    )


def waits_to_be_alone(job: Job) -> None:
    """Say that a job waits until this process holds no other."""
    logger.warning(
        "%s has lost its worker %s: it runs once this process holds nothing else",
        job.call_string,
        printable.counted(job.crashes, "time"),
        extra=_about(job, "wait_to_be_alone", crashes=job.crashes),
    )


def sent_back(job: Job) -> None:
    """Say that a job that has lost workers does not run beside those that are here."""
    logger.info(
        "%s has lost its worker %s, and goes back for a while: it cannot run beside the"
        " jobs that are here",
        job.call_string,
        printable.counted(job.crashes, "time"),
        extra=_about(job, "send_back", crashes=job.crashes),
    )


def unknown_task(job: Job) -> None:
    """Say once for each name that jobs of a task are left to other workers."""
    logger.warning(
        "no task named %s is known here: its jobs are left to other workers, the first is %s."
        " Was the module that defines it imported?",
        printable.line(repr(job.task_name)),
        job.call_string,
        extra=_about(job, "unknown_task"),
    )


def interrupted(job: Job) -> None:
    """Say that an attempt ended because the worker stops."""
    logger.info("handed back %s, which was interrupted", job.call_string)


def did_not_end(job: Job) -> None:
    """Say that a job was handed back although its task still runs."""
    logger.warning("handed back %s, which did not end", job.call_string)


def aborting(job: Job) -> None:
    """Say that a running job is asked to end, as a user wanted."""
    logger.info("aborting %s", job.call_string)


def aborting_unbegun(job: Job) -> None:
    """Say that a claimed job that has not begun is aborted, as a user wanted."""
    logger.info("aborting %s, which has not begun", job.call_string)


def lost(job: Job) -> None:
    """Say that a running job is asked to end, because another worker has it."""
    logger.warning(
        "%s is no longer this worker's: it is asked to end, and its result will not be written",
        job.call_string,
        extra=_about(job, "lost_lease"),
    )


def _about(job: Job, action: str, **more: object) -> dict[str, object]:
    return {"action": action, "job_id": job.id, "task_name": job.task_name, **more}
