"""What becomes of an attempt: a pure function of (job, what happened, retry strategy, now).

An exception becomes data here. The worker only carries an `Outcome` to the database.

Rules

1. What returned has succeeded, whatever it was asked to: what it did is done.
2. If a task raises after it was asked to end, the strongest request decides, not the exception: an
   exception raised during clean-up does not say why clean-up began. The strongest request is the
   first in this table, in whatever order they came:

   ============== =========================================================================
   lease lost     nothing that this worker writes: another one has the job
   user request   ``aborted``; never tried again
   shutdown       back to the queue, to be run elsewhere; the attempt counts
   timeout        failed with `TaskTimeout`, caused by what it raised; its strategy decides
   lease doubtful back to the queue, as with a shutdown, if the job is still this worker's
   none           ``aborted`` if it raised `JobAborted`, else failed; its strategy decides
   ============== =========================================================================

3. The database may know of a request that this worker has not heard yet. So the statement that
   writes an outcome has the last word: an attempt that did not succeed ends as ``aborted`` if that
   was asked for before the write. A job that would wait ends as ``cancelled`` if a twin with its
   queueing lock waits.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeAlias

from procrastinate.errors import JobAborted, TaskTimeout
from procrastinate.model.endings.retry import BaseRetryStrategy, RetryDecision, RetryStrategy
from procrastinate.model.job import Job, Status
from procrastinate.model.partitions import ONE, Partitions
from procrastinate.model.text import printable
from procrastinate.model.text.failure import consists_of, describe, undescribed


class AbortReason(enum.StrEnum):
    """Why a running job should end; of several, the first in this list.

    ``LEASE_LOST``: another worker has the job, and nothing that this attempt returns is written.
    ``LEASE_DOUBTFUL``: the worker could not show for so long that it lives that others may have
    taken the job. This passes when it can again, so it may be asked for and be gone later.
    """

    LEASE_LOST = "lease_lost"
    USER_REQUEST = "user_request"
    SHUTDOWN = "shutdown"
    TIMEOUT = "timeout"
    LEASE_DOUBTFUL = "lease_doubtful"


#: If an attempt that raises was asked to end for one of these, its job goes back to the queue.
GIVING_BACK = (AbortReason.LEASE_LOST, AbortReason.SHUTDOWN, AbortReason.LEASE_DOUBTFUL)
_STRENGTH = {reason: strength for strength, reason in enumerate(reversed(AbortReason))}


def stronger(current: AbortReason | None, new: AbortReason) -> AbortReason:
    """Return the stronger of two reasons to end, which is the one that counts."""
    if current is None:
        return new
    return max(current, new, key=_STRENGTH.__getitem__)


@dataclass(slots=True, unsafe_hash=True)  # frozen, it takes three times as long to make
class Finished:
    """The job has ended. ``error`` describes an attempt that did not succeed. Never changed.

    ``result`` is JSON text of what the task returned: ``"null"`` for None. None: nothing is kept.
    ``result_error`` is a sentence that says why nothing is kept although the task asks for it.
    """

    status: Status
    error: dict[str, Any] | None = None
    result: str | None = None
    result_error: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a retry changes in its job; None leaves the value."""

    priority: int | None = None
    queue: str | None = None
    lock: str | None = None


NO_CHANGES = Changes()


@dataclass(frozen=True, slots=True)
class Requeued:
    """The job goes back to the queue.

    ``when`` is the time (aware) or the delay after which it is due. None leaves it in its place: it
    is ready at once. ``begun`` is false if the task was not called. Such an attempt is not counted,
    and its delay doubles each time, up to `LONGEST_BOUNCE`. ``unknown`` is true if the worker knows
    no task of this name.
    """

    when: datetime | timedelta | None = None
    changes: Changes = NO_CHANGES
    error: dict[str, Any] | None = None
    begun: bool = True
    unknown: bool = False
    result: ClassVar[None] = None  # as an attempt that is to be repeated has none
    result_error: ClassVar[None] = None

    @property
    def status(self) -> Status:
        """The status that the job is to have."""
        return Status.TODO


#: What becomes of an attempt, and of its job.
Outcome: TypeAlias = Finished | Requeued

SUCCEEDED = Finished(Status.SUCCEEDED)  # without a result
INTERRUPTED = Requeued()  # the worker stops
UNSTARTED = Requeued(begun=False)  # the worker has no slot for it, or stops
#: The longest delay of a job that is handed back again and again before it begins.
LONGEST_BOUNCE = timedelta(seconds=60)


def has_succeeded(outcome: Outcome) -> bool:
    """Whether the attempt returned, with a result or without."""
    return outcome is SUCCEEDED or outcome.status is SUCCEEDED.status


def without_refused(outcome: Outcome, attempt: int) -> Outcome:
    """Return what to write in place of an outcome of which the server refused a value.

    A database that is not in UTF8 has not all characters. So texts are first tried in ASCII.
    """
    if outcome.error is not None:
        outcome = replace(outcome, error=_error_after_refusal(outcome.error, attempt))
    if isinstance(outcome, Finished) and (outcome.result or outcome.result_error):
        reason = printable.in_ascii(outcome.result_error)
        if reason == outcome.result_error:
            reason = RESULT_REFUSED
        outcome = replace(outcome, result=None, result_error=reason)
    return outcome


def _error_after_refusal(refused: dict[str, Any], attempt: int) -> dict[str, Any]:
    error: dict[str, Any] = printable.in_ascii(refused)
    if error == refused:
        error = undescribed(attempt)
        error["message"] = "the error of this attempt could not be stored"
    return error


@dataclass(frozen=True, slots=True)
class Standing:
    """What the row of a job says that a write did not match."""

    status: Status
    worker_id: int | None
    lease: int
    crashes: int


def was_written(job: Job, standing: Standing | None) -> bool:
    """Whether an outcome was written before, and only the answer to that write was lost.

    ``job`` is as it was claimed, ``standing`` None if it is gone. A lease ends in two ways only: by
    the write of its worker, or by a recovery, which counts as a crash. Jobs that are gone were
    removed after they had ended. A lower lease is that of a server which lost the claim in a crash.
    """
    if standing is None:
        return True
    if standing.lease < job.lease or standing.crashes > job.crashes:
        return False
    is_held = standing.status is Status.DOING and standing.lease == job.lease
    return not is_held


# What the statements add to `errors` (rule 3), each with its type.
ABORTED_TYPE = "procrastinate.errors.JobAborted"
WHY_ABORTED = "an abortion was asked for, so the job does not run again"
LOST_TYPE = "procrastinate.errors.WorkerLost"
UNKNOWN_TYPE = "procrastinate.errors.TaskNotFound"
WHY_UNKNOWN = "no worker knows a task of this name: was the module that defines it imported?"
RESULT_REFUSED = "the result could not be stored: the database refused it"
#: Why a job whose worker died has ended, by its new status; ``{crashes}`` stands for their number.
WHY_LOST = {
    Status.FAILED: "its worker died {crashes} times while it held this job",
    Status.ABORTED: "its worker died after abortion had been asked for",
    Status.CANCELLED: "its worker died, and a job with the same queueing lock is waiting",
}


def outcome_of(
    job: Job,
    exception: BaseException | None,
    *,
    strategy: BaseRetryStrategy | None,
    abort_reason: AbortReason | None,
    now: datetime,
    partitions: Partitions = ONE,
) -> Outcome:
    """Return what becomes of an attempt that returned (``exception`` None) or raised.

    ``exception`` has been through `judged`. A retry that gives its job a lock of another partition
    is a fault of the strategy. The module's rules say the rest.
    """
    if exception is None:
        return SUCCEEDED
    if abort_reason in GIVING_BACK:
        return INTERRUPTED
    error = describe(exception, attempt=job.attempts, now=now)
    if abort_reason is AbortReason.USER_REQUEST or consists_of(exception, JobAborted):
        return Finished(Status.ABORTED, error)
    try:
        retry = _retry_decision(strategy, exception, job)
        if retry is not None and partitions.are_many and retry.lock != job.lock:
            partitions.check_move(job.id, partitions.of_job(job), retry.lock)
    except BaseException as broken:  # a user's own strategy may raise anything
        error["retry_error"] = describe(broken, attempt=job.attempts, now=now)
        return Finished(Status.FAILED, error)
    return Finished(Status.FAILED, error) if retry is None else retried(retry, error)


def retried(decision: RetryDecision, error: dict[str, Any] | None = None) -> Requeued:
    """Return the outcome of an attempt that is to be tried again."""
    changes = Changes(decision.priority, decision.queue, decision.lock)
    return Requeued(decision.when, changes, error)


def judged(
    exception: BaseException, abort_reason: AbortReason | None, timeout: float | None
) -> BaseException:
    """Return what an attempt that raised this has failed with; ``timeout`` is seconds."""
    if abort_reason is not AbortReason.TIMEOUT or timeout is None:
        return exception
    timed_out = TaskTimeout(f"the attempt took longer than its timeout of {timeout:g} s")
    timed_out.__cause__ = exception
    return timed_out


def _retry_decision(
    strategy: BaseRetryStrategy | None, exception: BaseException, job: Job
) -> RetryDecision | None:
    if strategy is None:
        return None
    decision = strategy.get_retry_decision(exception=exception, job=job)
    if decision is None or type(strategy) is RetryStrategy:
        return decision
    if not isinstance(decision, RetryDecision):
        raise TypeError(
            f"{type(strategy).__name__}.get_retry_decision must return a RetryDecision or None,"
            f" not {decision!r:.200}"
        )
    # A copy of the plain class: a subclass may have properties that raise later, and an object
    # that was made without `__init__` has not been checked.
    return RetryDecision(
        retry_at=decision.retry_at,
        retry_in=decision.retry_in,
        priority=decision.priority,
        queue=decision.queue,
        lock=decision.lock,
    )
