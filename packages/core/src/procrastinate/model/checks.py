"""Checks of single values, made before anything reaches the database.

Each raises `InvalidOption` (or `InvalidTimestamp`) naming the option and the value.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from procrastinate.errors import InvalidOption, InvalidTimestamp

NAME_LENGTH = 128  # characters, of task and queue names: the width of their columns
LOCK_LENGTH = 512  # characters, of locks: an index entry must fit into a third of a page
PRIORITY_RANGE = (-(2**31), 2**31 - 1)  # PostgreSQL's integer
ARGS_BYTES = 200 * 1024 * 1024  # bytes of JSON; jsonb itself refuses 256 MiB

# PostgreSQL stores times that Python cannot hold. One such row could never be read again, neither
# by whoever lists jobs nor by a worker. Two days are left for the session's time zone.
EARLIEST = datetime(1, 1, 3, tzinfo=UTC)
LATEST = datetime(9999, 12, 29, tzinfo=UTC)
LONGEST_DELAY = timedelta(days=365 * 1000)  # from now, in both directions


def check_name(option: str, value: Any) -> str:
    """Return a task or queue name, or raise: 1 to 128 characters, no NUL."""
    text = _check_text(option, value, NAME_LENGTH)
    if not text:
        raise InvalidOption(f"{option} must not be empty")
    return text


def check_lock(option: str, value: Any) -> str | None:
    """Return a lock or queueing lock, or raise: None, or up to 512 characters without NUL."""
    return None if value is None else _check_text(option, value, LOCK_LENGTH)


def _check_text(option: str, value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise InvalidOption(f"{option} must be a str, not {type(value).__name__} {value!r}")
    if len(value) > limit:
        raise InvalidOption(
            f"{option} must have at most {limit} characters, and {value[:40]!r}… has {len(value)}"
        )
    if "\0" in value:
        raise InvalidOption(f"{option} must not contain a NUL character: {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise InvalidOption(f"{option} must be valid Unicode text: {value!r}") from exc
    return value


def check_flag(option: str, value: Any) -> bool:
    """Return True or False, or raise for anything else."""
    if not isinstance(value, bool):
        raise InvalidOption(f"{option} must be True or False, not {value!r}")
    return value


def check_priority(value: Any) -> int:
    """Return a priority, or raise: an int of 32 bits; larger ones run first."""
    low, high = PRIORITY_RANGE
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidOption(f"priority must be an int, not {type(value).__name__} {value!r}")
    if not low <= value <= high:
        raise InvalidOption(f"priority must be between {low} and {high}, not {value}")
    return value


def check_aware(option: str, value: Any) -> datetime:
    """Return a date and time that has a time zone, or raise `InvalidTimestamp`."""
    if not isinstance(value, datetime):
        raise InvalidTimestamp(f"{option} must be a datetime, not {type(value).__name__} {value!r}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidTimestamp(
            f"{option} must have a time zone, and {value.isoformat()!r} has none:"
            " use for instance datetime.now(timezone.utc)"
        )
    if not EARLIEST <= value <= LATEST:
        raise InvalidTimestamp(
            f"{option} must lie between the years 1 and 9999 in every time zone, and"
            f" {value.isoformat()!r} does not"
        )
    return value


def check_delta(option: str, value: Any) -> timedelta:
    """Return a timedelta, given as such or as a dict of its arguments, or raise."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, dict):
        raise InvalidOption(
            f"{option} must be a timedelta or a dict of its arguments,"
            f" not {type(value).__name__} {value!r}"
        )
    try:
        return timedelta(**value)
    except (TypeError, ValueError, OverflowError) as exc:  # ValueError: not a number
        raise InvalidOption(f"{option} is no duration: {value!r} ({exc})") from exc


def check_delay(option: str, value: Any) -> timedelta:
    """Return a time from now, given as `check_delta` takes it, or raise: up to 1000 years."""
    delay = check_delta(option, value)
    if not -LONGEST_DELAY <= delay <= LONGEST_DELAY:
        raise InvalidOption(f"{option} must be at most 1000 years, not {delay}")
    return delay


def check_limit(option: str, value: Any) -> float | None:
    """Return a limit in seconds, given as such, as a timedelta or as None (no limit), or raise."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or seconds <= 0:
        raise InvalidOption(
            f"{option} must be a number of seconds above 0 or such a timedelta, not {value!r}"
        )
    return float(seconds)


def microseconds(delta: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return delta // timedelta(microseconds=1)
