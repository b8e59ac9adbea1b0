"""What the fields of a page's address mean: filters of jobs, times, lengths of time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from procrastinate.errors import InvalidOption, InvalidTimestamp
from procrastinate.model import checks
from procrastinate.model.text.printable import shown

#: Filters that are compared as they stand.
TEXTS = ("state", "queue", "task", "lock", "error")
TIMES = ("since", "until")
FILTERS = (*TEXTS, "worker", *TIMES)

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NUMBER = re.compile(r"[0-9]{1,19}")
_AGE = re.compile(r"([0-9]{1,7})\s*([a-z]+)")
_LONGEST = 100 * 365 * 86_400  # seconds
_TIME_ADVICE = "give an age, such as 30m, 2h or 7d, or a time in UTC, such as 2026-11-28 14:00"


def given_filters(query: Mapping[str, str]) -> dict[str, str]:
    """Return the filters that are not empty, as they were written."""
    return {name: query[name].strip() for name in FILTERS if query.get(name, "").strip()}


def job_filters(given: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """Return what the job manager is asked for. Raises `InvalidOption` for what is malformed."""
    filters: dict[str, Any] = {name: given[name] for name in TEXTS if name in given}
    if "worker" in given:
        filters["worker_id"] = _number("worker", given["worker"])
    return filters | {name: time_from(name, given[name], now) for name in TIMES if name in given}


def _number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise InvalidOption(f"{name} is {shown(text)}: give its number")
    return int(text)


def time_from(name: str, text: str, now: datetime) -> datetime:
    """Return the time that a text means: an age before now, or a time in UTC."""
    age = age_from(text)
    if age is not None:
        return now - age
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidOption(f"{name} is {shown(text)}: {_TIME_ADVICE}") from None
    time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    try:
        checks.check_aware(name, time)
    except InvalidTimestamp as exc:
        raise InvalidOption(str(exc)) from exc
    return time


def age_from(text: str) -> timedelta | None:
    """Return a length of time such as 30m, 2h or 7d; None if it is none, or above a century."""
    found = _AGE.fullmatch(text.lower())
    seconds = int(found[1]) * _UNITS.get(found[2], 0) if found else 0
    return timedelta(seconds=seconds) if 0 < seconds <= _LONGEST else None


def address(page: str, **fields: Any) -> str:
    """Return a link to a page with the fields that are not None."""
    kept = {name: value for name, value in fields.items() if value is not None}
    return f"{page}?{urlencode(kept)}" if kept else page
