"""What the log says about single jobs."""

from __future__ import annotations

import logging
from typing import Any

from procrastinate.model.job import Job, Status
from procrastinate.model.outcome import Ending

logger = logging.getLogger("procrastinate.worker")

_SAID = {
    Status.TODO: (logging.WARNING, "failed, and will be tried again"),
    Status.FAILED: (logging.ERROR, "failed"),
    Status.ABORTED: (logging.INFO, "was aborted"),
}


def ended(job: Job, ending: Ending, exception: BaseException) -> None:
    """Say that an attempt did not succeed, and what becomes of the job."""
    level, what = _SAID[ending.status]
    logger.log(
        level,
        "%s %s: %s: %s",
        job.call_string,
        what,
        type(exception).__name__,
        exception,
        exc_info=exception if level >= logging.ERROR else None,
        extra={
            "action": "job_ended",
            "job_id": job.id,
            "task_name": job.task_name,
            "status": ending.status.value,
        },
    )
    broken_strategy = (ending.error or {}).get("retry_error")
    if broken_strategy is not None:
        _retry_strategy_failed(job, broken_strategy)


def _retry_strategy_failed(job: Job, error: dict[str, Any]) -> None:
    logger.error(
        "%s is not tried again, for its retry strategy failed: %s",
        job.call_string,
        error["traceback"].rstrip(),
        extra={
            "action": "retry_strategy_failed",
            "job_id": job.id,
            "task_name": job.task_name,
        },
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
