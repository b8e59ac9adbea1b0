"""What the job manager is asked for, checked: filters, statuses, ids, ages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict

from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.job import Status
from procrastinate.model.states import State, holds_of, statuses_of
from procrastinate.model.text.printable import shown
from procrastinate.storage.jobs import JobFilter

Statuses = Status | str | Iterable[Status | str]
States = State | str | Iterable[State | str]

ERROR_LENGTH = 1_000  # characters of an error that is searched


class JobFilters(TypedDict, total=False):
    """Which jobs; what is left out or None matches everything, an empty list nothing.

    ``task``, ``queue``, ``lock`` and ``queueing_lock`` are compared as a whole; ``worker_id`` is
    the worker that holds the job or held it last. ``state`` is a `State` or several, and
    ``status`` the coarser thing that the table has: a job must be in one of both.

    ``since`` and ``until`` (aware; from the one on, and before the other) are about when a job
    ended, or when it started if it runs, or when it was deferred if it waits. ``error`` is a text
    that the type or the message of the last error contains, in upper or lower case.
    """

    id: int | Iterable[int] | None
    queue: str | None
    task: str | None
    status: Statuses | None
    state: States | None
    lock: str | None
    queueing_lock: str | None
    worker_id: int | None
    since: datetime | None
    until: datetime | None
    error: str | None


def checked_filter(filters: Mapping[str, Any]) -> JobFilter:
    """Return the filter that these mean. Raises `InvalidOption` naming the filter and the value."""
    unknown = sorted(filters.keys() - JobFilters.__annotations__.keys())
    if unknown:
        known = ", ".join(JobFilters.__annotations__)
        raise InvalidOption(f"jobs have no filter {shown(unknown[0])} (known: {known})")
    ids, status, worker_id = (filters.get(name) for name in ("id", "status", "worker_id"))
    since, until = _period(filters.get("since"), filters.get("until"))
    wanted = None if filters.get("state") is None else states(filters["state"])
    return JobFilter(
        ids=None if ids is None else checks.guarded(_ids, "id", ids),
        queue=name_or_none("queue", filters.get("queue")),
        task=name_or_none("task", filters.get("task")),
        statuses=_both(None if status is None else statuses(status), wanted),
        holds=None if wanted is None else holds_of(wanted),
        lock=checks.check_lock("lock", filters.get("lock")),
        queueing_lock=checks.check_lock("queueing_lock", filters.get("queueing_lock")),
        worker_id=None if worker_id is None else checked_id(worker_id, "worker_id"),
        since=since,
        until=until,
        error=_error(filters.get("error")),
    )


def _both(statuses: list[Status] | None, states: list[State] | None) -> list[Status] | None:
    """Return the statuses that both filters allow."""
    if states is None:
        return statuses
    return [each for each in statuses_of(states) if statuses is None or each in statuses]


def _period(since: Any, until: Any) -> tuple[datetime | None, datetime | None]:
    if since is not None:
        checks.check_aware("since", since)
    if until is not None:
        checks.check_aware("until", until)
    if since is not None and until is not None and since >= until:
        raise InvalidOption(f"since must be before until: {since} is not before {until}")
    return since, until


def _error(text: Any) -> str | None:
    if text is None:
        return None
    if not checks.check_text("error", text, ERROR_LENGTH):
        raise InvalidOption("error must not be empty: every error contains that")
    return str(text)


def _ids(option: str, given: Any) -> list[int]:
    if isinstance(given, str) or not isinstance(given, int | Iterable):
        raise InvalidOption(f"{option} must be a job id or a list of them, not {shown(given)}")
    return [checked_id(each) for each in ([given] if isinstance(given, int) else given)]


def checked_id(value: Any, what: str = "a job id") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InvalidOption(f"{what} must be an int from 0 to 2**63 - 1, not {shown(value)}")
    return value


def checked_limit(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**31 - 1:
        raise InvalidOption(f"limit must be a number of jobs from 1, not {shown(value)}")
    return value


def name_or_none(option: str, value: Any) -> str | None:
    return None if value is None else checks.check_name(option, value)


def statuses(given: Any) -> list[Status]:
    """Return one status or several as a list."""
    try:
        return [Status(each) for each in ([given] if isinstance(given, str) else given)]
    except Exception as exc:  # ValueError, TypeError, or what the repr in their message raises
        raise InvalidOption(
            f"status must be one of {', '.join(Status)}, not {shown(given)}"
        ) from exc


def states(given: Any) -> list[State]:
    """Return one state or several as a list."""
    try:
        return [State(each) for each in ([given] if isinstance(given, str) else given)]
    except Exception as exc:
        raise InvalidOption(f"state must be one of {', '.join(State)}, not {shown(given)}") from exc


def ages_us(policy: Any) -> dict[Status, int]:
    """Return how long to keep jobs of each status, in microseconds."""
    if not isinstance(policy, Mapping) or not policy:
        raise InvalidOption(
            "a retention policy must be a dict of ages by status, such as"
            f" {{'failed': timedelta(days=90)}}, not {shown(policy)}"
        )
    ages = {}
    for name, age in policy.items():
        (status,) = statuses(name if isinstance(name, str) else [name])
        if not status.is_final:
            raise InvalidOption(f"only jobs that ended can be deleted by age, not {status} ones")
        ages[status] = age_us(f"the age of {status} jobs", age)
    return ages


def age_us(option: str, age: Any) -> int:
    """Return an age in microseconds, given as a timedelta or a dict of its arguments."""
    checked = checks.check_delay(option, age)
    if checked < timedelta():
        raise InvalidOption(f"{option} must not be negative: {checked}")
    return checks.microseconds(checked)
