"""What a finished attempt becomes: a pure function of (job, what happened, retry strategy, now).

An exception becomes data here. The worker only carries an `Ending` to the database.

Rules

1. What returned has succeeded, whatever it was asked to: what it did is done.
2. What raised ended for the strongest reason that it was asked to end for, whatever it raised, for
   the exception of a clean-up says nothing about why there was one. A person's request is stronger
   than the worker's shutdown, and that than the task's timeout, in whichever order they came:

   ============ ===========================================================================
   user request ``aborted``; never tried again
   shutdown     back to the queue, to be run elsewhere; the attempt counts
   timeout      failed with `TaskTimeout`, caused by what it raised; its strategy decides
   none         ``aborted`` if it raised `JobAborted`, else failed; its strategy decides
   ============ ===========================================================================
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from procrastinate.errors import JobAborted, TaskTimeout
from procrastinate.model.failure import consists_of, describe
from procrastinate.model.job import Job, Status
from procrastinate.model.retry import BaseRetryStrategy, RetryDecision


class AbortReason(enum.StrEnum):
    """Why a running job should end; of several, the first in this list."""

    USER_REQUEST = "user_request"
    SHUTDOWN = "shutdown"
    TIMEOUT = "timeout"


_STRENGTH = {reason: strength for strength, reason in enumerate(reversed(AbortReason))}


def stronger(current: AbortReason | None, new: AbortReason) -> AbortReason:
    """Return which of two reasons holds, where the other one came first."""
    if current is None:
        return new
    return max(current, new, key=_STRENGTH.__getitem__)


@dataclass(frozen=True, slots=True)
class Ending:
    """What to write about an attempt that ended.

    ``status`` is a final one, or ``todo`` together with ``retry``; `INTERRUPTED` alone is ``todo``
    without. ``error`` describes a failed attempt, for the job's ``errors``.
    """

    status: Status
    retry: RetryDecision | None = None
    error: dict[str, Any] | None = None


SUCCEEDED = Ending(Status.SUCCEEDED)
INTERRUPTED = Ending(Status.TODO)  # by the worker's end: the job is handed back


def ending_of(
    job: Job,
    exception: BaseException | None,
    *,
    strategy: BaseRetryStrategy | None,
    abort_reason: AbortReason | None,
    now: datetime,
) -> Ending:
    """Return what an attempt becomes that returned (``exception`` None) or raised.

    ``exception`` has been through `judged`. The module's rules say the rest.
    """
    if exception is None:
        return SUCCEEDED
    if abort_reason is AbortReason.SHUTDOWN:
        return INTERRUPTED
    error = describe(exception, attempt=job.attempts, now=now)
    if abort_reason is AbortReason.USER_REQUEST or consists_of(exception, JobAborted):
        return Ending(Status.ABORTED, error=error)
    try:
        retry = _retry_decision(strategy, exception, job)
    except BaseException as broken:  # a user's own strategy may raise anything
        error["retry_error"] = describe(broken, attempt=job.attempts, now=now)
        return Ending(Status.FAILED, error=error)
    if retry is None:
        return Ending(Status.FAILED, error=error)
    return Ending(Status.TODO, retry=retry, error=error)


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
    if decision is None:
        return None
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
