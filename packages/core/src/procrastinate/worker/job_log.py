"""What the worker's log says about single jobs, besides that they start and end.

The rules are those of `procrastinate.observing.job_log`.
"""

from __future__ import annotations

from collections.abc import Sequence

from procrastinate.model.job import Job
from procrastinate.model.text import failure, printable
from procrastinate.observing.job_log import about
from procrastinate.worker.log import logger

NAMED = 5  # jobs in one line at the most


def waited_too_long(count: int) -> None:
    """Say that jobs claimed ahead go back to the queue because no slot was free in time."""
    logger.debug("handing back %s claimed ahead", printable.counted(count, "job"))


def waiting_for(jobs: Sequence[Job]) -> None:
    """Say for which running jobs a worker waits that stops: the first ones by name."""
    logger.info(
        "waiting for %s: %s",
        printable.counted(len(jobs), "running job"),
        _named(jobs),
        extra={"action": "wait_for_jobs", "job_ids": [job.id for job in jobs]},
    )


def unwritten(jobs: Sequence[Job]) -> None:
    """Say which jobs a worker leaves behind as running, as their endings are unwritten."""
    logger.error(
        "could not write %s: other workers will run %s again: %s",
        printable.counted(len(jobs), "ending"),
        "this job" if len(jobs) == 1 else "these jobs",
        _named(jobs),
        extra={"action": "leave_unwritten", "job_ids": [job.id for job in jobs]},
    )


def _named(jobs: Sequence[Job]) -> str:
    """Return the first ones of some jobs by name."""
    names = ", ".join(job.call_string for job in jobs[:NAMED])
    return f"{names} and {len(jobs) - NAMED} more" if len(jobs) > NAMED else names


def undescribed(job: Job, broken: BaseException) -> None:
    """Say that an attempt's ending could not be told in full, and what prevented it."""
    logger.error(
        "%s ended, but what it ended with could not be told: %s",
        job.call_string,
        printable.line(failure.headline_of(broken)),
        extra=about(job, "job_undescribed"),
    )


def no_task(job: Job, broken: BaseException) -> None:
    """Say that the loop's task factory failed, and that the job runs without it."""
    logger.warning(
        "%s runs in a plain task because the event loop's task factory failed: %s",
        job.call_string,
        printable.line(failure.headline_of(broken)),
        extra=about(job, "task_factory_failed"),
    )


def no_thread(job: Job, broken: BaseException) -> None:
    """Say that no thread can be started for a job, which goes back for a while."""
    logger.warning(
        "%s goes back for a while, because the system starts no thread for it: %s",
        job.call_string,
        printable.line(failure.headline_of(broken)),
        extra=about(job, "send_back"),
    )


def waits_to_be_alone(job: Job) -> None:
    """Say that a job waits until this process holds no other."""
    logger.warning(
        "%s has lost its worker %s: it runs once this process holds nothing else",
        job.call_string,
        printable.counted(job.crashes, "time"),
        extra=about(job, "wait_to_be_alone", crashes=job.crashes),
    )


def sent_back(job: Job) -> None:
    """Say that a job that has lost workers does not run beside those that are here."""
    logger.info(
        "%s has lost its worker %s, and goes back for a while: it cannot run beside the"
        " jobs that are here",
        job.call_string,
        printable.counted(job.crashes, "time"),
        extra=about(job, "send_back", crashes=job.crashes),
    )


def unknown_task(job: Job) -> None:
    """Say once for each name that jobs of a task are left to other workers."""
    logger.warning(
        "no task named %s is known here: its jobs are left to other workers, the first is %s."
        " Was the module that defines it imported?",
        printable.line(repr(job.task_name)),
        job.call_string,
        extra=about(job, "unknown_task"),
    )


def interrupted(job: Job) -> None:
    """Say that an attempt ended because the worker stops."""
    logger.info(
        "handed back %s, which was interrupted",
        job.call_string,
        extra=about(job, "job_interrupted"),
    )


def did_not_end(job: Job) -> None:
    """Say that a job was handed back although its task still runs."""
    logger.warning(
        "handed back %s, which did not end", job.call_string, extra=about(job, "job_did_not_end")
    )


def aborting(job: Job) -> None:
    """Say that a running job is asked to end, as a user wanted."""
    logger.info("aborting %s", job.call_string, extra=about(job, "abort_job"))


def aborting_unbegun(job: Job) -> None:
    """Say that a claimed job that has not begun is aborted, as a user wanted."""
    logger.info("aborting %s, which has not begun", job.call_string, extra=about(job, "abort_job"))


def lost(job: Job) -> None:
    """Say that a running job is asked to end, because another worker has it."""
    logger.warning(
        "%s is no longer this worker's: it is asked to end, and its ending will not be written",
        job.call_string,
        extra=about(job, "lost_lease"),
    )
