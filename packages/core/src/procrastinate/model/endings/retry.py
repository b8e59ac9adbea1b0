"""Whether, when and how a failed attempt is tried again: pure functions of (job, exception).

The wait before attempt ``n + 1`` (``n`` failed attempts so far, counted from 1) is::

    wait + linear_wait * (n - 1) + exponential_wait ** n        seconds,

capped at ``max_wait`` and at ``LONGEST_WAIT``; ``jitter`` then spreads it evenly over
``[w * (1 - jitter), w]``, because retries arrive in herds. Nothing overflows, whatever the number
of attempts: each term is capped before it is computed.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.job import Job
from procrastinate.model.text.printable import shown

#: Waits end here whatever the formula says (seconds): a year.
LONGEST_WAIT = 366 * 24 * 3600.0


def _drawn() -> float:
    """Return a random number from 0 to 1."""
    import random  # not at the top: programs that only defer do without

    return random.random()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    """Try again: at ``retry_at`` (aware) or ``retry_in`` (from now), at once if neither is set.

    ``priority``, ``queue`` and ``lock`` change the job for its next attempt; None leaves them.
    """

    retry_at: datetime | None = None
    retry_in: timedelta | dict[str, Any] | None = None
    priority: int | None = None
    queue: str | None = None
    lock: str | None = None

    def __post_init__(self) -> None:
        if self.retry_at is not None and self.retry_in is not None:
            raise InvalidOption("retry_at and retry_in exclude each other; give one of them")
        if self.retry_at is not None:
            checks.check_aware("retry_at", self.retry_at)
        if self.retry_in is not None:
            object.__setattr__(self, "retry_in", checks.check_delay("retry_in", self.retry_in))
        if self.priority is not None:
            checks.check_priority(self.priority)
        if self.queue is not None:
            checks.check_name("queue", self.queue)
        checks.check_lock("lock", self.lock)

    @property
    def when(self) -> datetime | timedelta:
        """``retry_at``, or else ``retry_in`` as a timedelta."""
        if self.retry_at is not None:
            return self.retry_at
        return checks.check_delta("retry_in", self.retry_in or timedelta())


class BaseRetryStrategy(abc.ABC):
    """Decides about each failed attempt; subclass it for rules of your own.

    A strategy that raises, or returns something else, fails the job: ``errors`` then says both what
    the task raised and, as ``retry_error``, what is wrong with the strategy.

    A class with the ``get_schedule_in`` of releases up to 3.x and nothing else is refused where it
    is defined, with `InvalidOption`.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "get_schedule_in" in vars(cls) and "get_retry_decision" not in vars(cls):
            raise InvalidOption(
                f"{cls.__qualname__}.get_schedule_in() would never be asked: write"
                " get_retry_decision(self, *, exception, job), and return"
                ' RetryDecision(retry_in={"seconds": ...}) or None. Its job.attempts counts the'
                " attempt that failed, which the former `attempts` did not"
            )

    @abc.abstractmethod
    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Return how to try again, or None to let the job fail.

        ``job.attempts`` counts the attempts so far, the failed one included, since the job was
        deferred or last retried by hand.
        """


@dataclass(frozen=True, kw_only=True)
class RetryStrategy(BaseRetryStrategy):
    """Try again up to ``max_attempts`` times, waiting as the module's formula says.

    ``max_attempts`` counts retries after the first attempt; None means without end. ``wait``,
    ``linear_wait`` and ``max_wait`` are seconds, ``exponential_wait`` is the base of the power
    (0: no such term), ``jitter`` a fraction from 0 to 1. ``retry_exceptions``, one class or
    several, limits retries to these exceptions and their subclasses. Raises `InvalidOption` naming
    the option and the value.
    """

    max_attempts: int | None = None
    wait: float = 0
    linear_wait: float = 0
    exponential_wait: float = 0
    max_wait: float | None = None
    jitter: float = 0
    retry_exceptions: type[BaseException] | Iterable[type[BaseException]] | None = None
    random: Callable[[], float] = field(default=_drawn, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_attempts is not None and not _is_count(self.max_attempts):
            raise InvalidOption(
                f"max_attempts must be an int from 0, not {shown(self.max_attempts)}"
            )
        for name in ("wait", "linear_wait", "exponential_wait", "max_wait"):
            _check_seconds(name, getattr(self, name))
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise InvalidOption(f"jitter must be between 0 and 1, not {shown(self.jitter)}")
        if self.retry_exceptions is not None:
            classes = checks.guarded(_exception_classes, "retry_exceptions", self.retry_exceptions)
            object.__setattr__(self, "retry_exceptions", classes)

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if self.max_attempts is not None and job.attempts > self.max_attempts:
            return None
        if not isinstance(exception, self._retried):
            return None
        return RetryDecision(retry_in=timedelta(seconds=self.seconds_before_retry(job.attempts)))

    def seconds_before_retry(self, failed_attempts: int) -> float:
        """Return the wait after this many failed attempts (from 1), jitter included, in seconds."""
        total = (
            min(self.wait, LONGEST_WAIT)
            + _product(self.linear_wait, failed_attempts - 1)
            + _power(self.exponential_wait, failed_attempts)
        )
        cap = LONGEST_WAIT if self.max_wait is None else min(self.max_wait, LONGEST_WAIT)
        return min(total, cap) * (1 - self.jitter * self.random())

    @property
    def _retried(self) -> tuple[type[BaseException], ...]:
        if self.retry_exceptions is None:
            return (BaseException,)
        return _exception_classes("retry_exceptions", self.retry_exceptions)


def _check_seconds(name: str, value: Any) -> None:
    if value is None and name == "max_wait":
        return
    if not _is_number(value) or not value >= 0:
        raise InvalidOption(f"{name} must be a number from 0, not {shown(value)}")


def _is_number(value: Any) -> bool:
    """Whether it is a real number that can be computed with: not a bool, infinite or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _exception_classes(option: str, classes: Any) -> tuple[type[BaseException], ...]:
    found = tuple(classes) if isinstance(classes, Iterable) else (classes,)
    for item in found:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise InvalidOption(f"{option} must hold exception classes, not {shown(item)}")
    return found


def _product(step: float, count: int) -> float:
    """``step * count``, but never more than `LONGEST_WAIT`, and never an OverflowError."""
    if step <= 0 or count <= 0:
        return 0.0
    return LONGEST_WAIT if step >= LONGEST_WAIT / count else float(step * count)


def _power(base: float, exponent: int) -> float:
    """``base ** exponent``, but never more than `LONGEST_WAIT`, and never an OverflowError."""
    if base <= 0:
        return 0.0
    if exponent * math.log(base) >= math.log(LONGEST_WAIT):
        return LONGEST_WAIT
    return float(base**exponent)


def strategy_from(retry: object) -> BaseRetryStrategy | None:
    """Return the strategy that a task's ``retry=`` stands for.

    False: none; True: without end, at once; an int: this number of retries, at once; or a strategy.
    Raises `InvalidOption` for anything else.
    """
    if retry is False or retry is None:
        return None
    if retry is True:
        return RetryStrategy()
    if isinstance(retry, int):
        if retry < 0:
            raise InvalidOption(f"retry must be a number of retries from 0, not {shown(retry)}")
        return RetryStrategy(max_attempts=retry)
    if isinstance(retry, BaseRetryStrategy):
        return retry
    raise InvalidOption(f"retry must be a bool, an int or a retry strategy, not {shown(retry)}")
