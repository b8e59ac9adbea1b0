"""What procrastinate logs about jobs: deferred, started, ended. The log is the first observer.

Rules

1. Nothing here raises.
2. Texts that come from a task are those that are stored with the job: capped, and not formatted
   again. They are escaped, so that they cannot forge or hide lines of a log.
3. A failure is said when it happened, with its exception. A success is said once it is written,
   and then also that its result is not kept although its task keeps results.
4. The fields of a record are flat in its ``extra``: `action`, `job_id`, `task_name`, `queue`,
   `attempt`, `status`, `duration` (seconds), `worker_name`, `worker_id`, as far as they exist, and
   `count` if it is about several jobs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from procrastinate.model.job import NAME_SHOWN, Job, Status
from procrastinate.model.text import failure, printable
from procrastinate.model.text.printable import counted
from procrastinate.observing import events
from procrastinate.observing.observer import Observer
from procrastinate.observing.safe_log import SafeLog
from procrastinate.observing.sampling import FAILURES, SUCCESSES, Sampler

logger = SafeLog(logging.getLogger("procrastinate.jobs"))

_SUCCEEDED = Status.SUCCEEDED  # looking a member up in its class takes a call before Python 3.12
_RAISED = {  # the level, and what is said of one job and of several
    Status.TODO: (
        logging.WARNING,
        "failed, and will be tried again",
        "failed, and will be tried again",
    ),
    Status.FAILED: (logging.ERROR, "failed", "failed"),
    Status.ABORTED: (logging.INFO, "was aborted", "were aborted"),
}


def deferred(event: events.Deferred) -> None:
    """Log at DEBUG that jobs were deferred: one record, also for a batch."""
    first, count = event.jobs[0], len(event.jobs)
    about: dict[str, object] = {"action": "job_deferred"}
    if all(job.task_name == first.task_name for job in event.jobs):
        about["task_name"] = first.task_name
    if all(job.queue == first.queue for job in event.jobs):
        about["queue"] = first.queue
    name = printable.line(first.task_name, NAME_SHOWN) if "task_name" in about else "several tasks"
    if count == 1:
        about["job_id"] = event.ids[0]
        what = f"{name}[{event.ids[0]}]"
    else:
        about["count"] = count
        what = f"{counted(count, 'job')} of {name}"
    where = ", in a transaction of the caller's" if event.in_transaction else ""
    logger.debug("deferred %s%s", what, where, extra=about)


#: Successes are counted by this alone: with the queue, counting takes twice as long.
_TASK_NAME = attrgetter("job.task_name")
#: Nothing but a job that has ended comes here, and of it no observer needs this yet.
_RESULT_ERROR = attrgetter("outcome.result_error")


class _Failure(NamedTuple):
    task_name: str
    type_name: str
    status: Status


class JobLog(Observer):
    """The log about the jobs of one worker.

    If ``sampled``, what exceeds a limit is summed up (`procrastinate.observing.sampling`).
    """

    def __init__(
        self,
        worker_name: str,
        worker_id: int,
        *,
        sampled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._about_worker = {"worker_name": worker_name, "worker_id": worker_id}
        self._sampled = sampled
        self._clock = clock
        self._successes = Sampler[str](SUCCESSES, per_key=False)
        self._failures = Sampler[_Failure](FAILURES, per_key=True)
        self._not_kept = Sampler[str](FAILURES, per_key=True)

    def on_started(self, event: events.Started) -> None:
        if not logger.isEnabledFor(logging.DEBUG):
            return
        for job in event.jobs:
            logger.debug(
                "%s starts, attempt %d",
                *(job.call_string, job.attempts),
                extra=self._about(job, "job_started"),
            )

    def on_raised(self, event: events.Raised) -> None:
        type_name = str(event.error["type"])
        job = event.job
        if self._sampled:
            now = self._clock()
            self.sum_up(now)
            key = _Failure(job.task_name, type_name, event.status)
            if not self._failures.take([key], now):
                return
        self._raised(event)

    def _raised(self, event: events.Raised) -> None:
        level, what, _ = _RAISED[event.status]
        job, error = event.job, event.error
        message = printable.line(failure.headline(_short(error["type"]), error["message"]))
        about = self._about(
            job, "job_ended", status=event.status.value, duration=round(event.duration, 6)
        )
        if level < logging.WARNING:
            logger.log(level, "%s %s: %s", job.call_string, what, message, extra=about)
            return
        logger.failure(
            *(level, "%s %s: %s", job.call_string, what, message),
            exception=event.exception,
            traceback=error["traceback"],
            extra=about,
        )
        if error.get("retry_error") is not None:
            self._retry_strategy_failed(job, error["retry_error"])

    def _retry_strategy_failed(self, job: Job, error: Mapping[str, Any]) -> None:
        logger.error(
            "%s is not tried again because its retry strategy failed:\n%s",
            job.call_string,
            printable.block(error["traceback"]),
            extra=self._about(job, "retry_strategy_failed"),
        )

    def on_ended(self, event: events.Ended) -> None:
        if logger.isEnabledFor(logging.INFO):
            self._some_ended(event)
        if any(map(_RESULT_ERROR, event.attempts)):
            self._without_result(event)

    def _some_ended(self, event: events.Ended) -> None:
        succeeded = [each for each in event.attempts if each.status is _SUCCEEDED]
        if self._sampled and succeeded:
            now = self._clock()
            self.sum_up(now)
            keys = list(map(_TASK_NAME, succeeded))
            succeeded = succeeded[: self._successes.take(keys, now)]
        self._succeeded(succeeded)

    def _succeeded(self, attempts: Sequence[events.Attempted]) -> None:
        for each in attempts:
            duration = each.duration or 0.0
            logger.info(
                "%s succeeded in %.3f s",
                *(each.job.call_string, duration),
                extra=self._about(
                    each.job, "job_ended", status="succeeded", duration=round(duration, 6)
                ),
            )

    def _without_result(self, event: events.Ended) -> None:
        for each in event.attempts:
            why = _RESULT_ERROR(each)
            if why is not None and self._says_not_kept(each.job.task_name):
                logger.warning(
                    "%s has succeeded, but %s",
                    *(each.job.call_string, printable.line(why)),
                    extra=self._about(each.job, "result_not_kept", status="succeeded"),
                )

    def _says_not_kept(self, task_name: str) -> bool:
        if not self._sampled:
            return True
        now = self._clock()
        self.sum_up(now)
        return self._not_kept.take([task_name], now) > 0

    def sum_up(self, now: float, *, at_once: bool = False) -> None:
        """Log the sums of a second that is over; with ``at_once`` also of one that is not."""
        for success in self._successes.due(now, at_once=at_once):
            logger.info(
                "%s of %s succeeded within %.1f s",
                counted(success.count, "more job"),
                printable.line(success.key, NAME_SHOWN),
                success.seconds,
                extra=self._of_several(success.key, success.count, Status.SUCCEEDED),
            )
        for failed in self._failures.due(now, at_once=at_once):
            level, of_one, of_several = _RAISED[failed.key.status]
            logger.log(
                level,
                "%s of %s %s within %.1f s: %s",
                counted(failed.count, "more job"),
                printable.line(failed.key.task_name, NAME_SHOWN),
                *(
                    of_one if failed.count == 1 else of_several,
                    failed.seconds,
                    printable.line(_short(failed.key.type_name)),
                ),
                extra=self._of_several(failed.key.task_name, failed.count, failed.key.status),
            )
        for lacking in self._not_kept.due(now, at_once=at_once):
            logger.warning(
                "%s of %s succeeded without a result within %.1f s",
                counted(lacking.count, "more job"),
                printable.line(lacking.key, NAME_SHOWN),
                lacking.seconds,
                extra={
                    **self._of_several(lacking.key, lacking.count, Status.SUCCEEDED),
                    "action": "result_not_kept",
                },
            )

    def _about(self, job: Job, action: str, **more: object) -> dict[str, object]:
        return {**about(job, action), **self._about_worker, **more}

    def _of_several(self, task_name: str, count: int, status: Status) -> dict[str, object]:
        return {
            "action": "job_ended",
            "task_name": task_name,
            "status": status.value,
            "count": count,
            **self._about_worker,
        }


def about(job: Job, action: str, **more: object) -> dict[str, object]:
    """Return the fields of a record about one job (rule 4)."""
    return {
        "action": action,
        "job_id": job.id,
        "task_name": job.task_name,
        "queue": job.queue,
        "attempt": job.attempts,
        **({} if job.worker is None else {"worker_id": job.worker}),
        **more,
    }


def _short(type_name: str) -> str:
    return type_name.rpartition(".")[2]
