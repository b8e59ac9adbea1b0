"""What a finished attempt becomes: a pure function of (job, what happened, retry strategy, now).

An exception becomes data here. The worker only carries an `Ending` to the database.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from procrastinate.errors import JobAborted
from procrastinate.model.job import Job, Status
from procrastinate.model.retry import BaseRetryStrategy, RetryDecision

MESSAGE_CHARACTERS = 2_000
TRACEBACK_CHARACTERS = 8_000


@dataclass(frozen=True, slots=True)
class Ending:
    """What to write about an attempt that ended.

    ``status`` is a final one, or ``todo`` together with ``retry``. ``error`` describes a failed
    attempt, for the job's ``errors``.
    """

    status: Status
    retry: RetryDecision | None = None
    error: dict[str, Any] | None = None


SUCCEEDED = Ending(Status.SUCCEEDED)


def ending_of(
    job: Job,
    exception: BaseException | None,
    *,
    strategy: BaseRetryStrategy | None,
    abort_requested: bool,
    now: datetime,
) -> Ending:
    """Return what an attempt becomes that returned (``exception`` None) or raised.

    A task that was asked to abort and returned all the same has succeeded: what it did is done.
    One that was asked to abort and raised, whatever it raised, is aborted and not retried.
    """
    if exception is None:
        return SUCCEEDED
    error = describe(exception, attempt=job.attempts, now=now)
    if isinstance(exception, JobAborted) or abort_requested:
        return Ending(Status.ABORTED, error=error)
    try:
        retry = _retry_decision(strategy, exception, job)
    except Exception as broken:  # a strategy of the user's own must not lose the job
        error["retry_error"] = describe(broken, attempt=job.attempts, now=now)
        return Ending(Status.FAILED, error=error)
    if retry is None:
        return Ending(Status.FAILED, error=error)
    return Ending(Status.TODO, retry=retry, error=error)


def _retry_decision(
    strategy: BaseRetryStrategy | None, exception: BaseException, job: Job
) -> RetryDecision | None:
    if strategy is None:
        return None
    counted = replace(job, attempts=job.attempts - job.attempts_forgiven)
    decision = strategy.get_retry_decision(exception=exception, job=counted)
    if decision is not None and not isinstance(decision, RetryDecision):
        raise TypeError(
            f"{type(strategy).__name__}.get_retry_decision must return a RetryDecision or None,"
            f" not {decision!r:.200}"
        )
    return decision


def describe(exception: BaseException, *, attempt: int, now: datetime) -> dict[str, Any]:
    """Return a failed attempt's exception as JSON data, its texts capped (in characters)."""
    return {
        "attempt": attempt,
        "at": now.astimezone(UTC).isoformat(),
        "type": _type_of(exception),
        "message": _storable(_message_of(exception), MESSAGE_CHARACTERS),
        "traceback": _storable(_traceback_of(exception), TRACEBACK_CHARACTERS),
    }


def _type_of(exception: BaseException) -> str:
    kind = type(exception)
    builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if builtin else f"{kind.__module__}.{kind.__qualname__}"


def _message_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception as broken:
        return f"<str() of the exception failed with {type(broken).__name__}>"


def _traceback_of(exception: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exception))
    except Exception as broken:
        return f"<formatting the traceback failed with {type(broken).__name__}>"


def _storable(text: str, limit: int) -> str:
    """Cut the middle out of a long text, and replace what PostgreSQL cannot store."""
    if len(text) > limit:
        head = limit // 4
        cut = len(text) - limit
        text = f"{text[:head]}\n… {cut} characters cut …\n{text[len(text) - (limit - head) :]}"
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
