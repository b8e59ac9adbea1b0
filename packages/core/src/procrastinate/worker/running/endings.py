"""How an attempt ended, as an entry for the writer."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from procrastinate.model.endings.outcome import Finished, Outcome, outcome_of
from procrastinate.model.job import Status
from procrastinate.model.partitions import Partitions
from procrastinate.model.text import failure
from procrastinate.storage.finish import Ended
from procrastinate.worker.process import forks
from procrastinate.worker.running.attempt import Attempt, NotBegun


def dropped() -> RuntimeError:
    return RuntimeError("the event loop's task factory did not run the job")


def unseen_end(attempt: Attempt, task: asyncio.Future[None]) -> BaseException | None:
    """Return what an attempt raised (None: it returned) whose end has passed unseen."""
    if attempt.returned:
        return None
    if task.cancelled():
        is_task = isinstance(task, asyncio.Task)  # else it would never run, however often begun
        return NotBegun() if is_task and not attempt.began else asyncio.CancelledError()
    return task.exception() or dropped()


def after_exception(attempt: Attempt, exception: BaseException, partitions: Partitions) -> Ended:
    """Return what is to be written about an attempt that raised."""
    job, ended, kept = attempt.job, time.monotonic(), bool(attempt.definition.result)
    if type(exception) is NotBegun:
        return Ended(job, exception.outcome, kept=kept)
    generation = forks.Process.generation
    outcome = outcome_of(
        attempt.shown_job(),
        exception,
        strategy=attempt.definition.retry,
        abort_reason=attempt.abort_reason,
        now=datetime.now(UTC),
        partitions=partitions,
    )
    forks.end_if_forked(generation)  # by the retry strategy
    return Ended(job, outcome, attempt.began, ended, kept)


def last_resort(attempt: Attempt, exception: BaseException | None) -> Ended:
    """Return what is to be written if nothing else can be said."""
    job, ended, kept = attempt.job, time.monotonic(), bool(attempt.definition.result)
    if type(exception) is NotBegun:
        return Ended(job, exception.outcome, kept=kept)
    outcome: Outcome = attempt.success
    if exception is not None:
        outcome = Finished(Status.FAILED, failure.undescribed(job.attempts))
    return Ended(job, outcome, attempt.began, ended, kept)
