"""Checks of single values, made before anything reaches the database.

Each raises `InvalidOption` (or `InvalidTimestamp`) naming the option and the value.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

from procrastinate.errors import ConfigurationError, InvalidOption, InvalidTimestamp
from procrastinate.model.text.failure import headline_of, message_of, type_name
from procrastinate.model.text.printable import shown, type_of

#: Returns the value of an option as it is kept, or raises `InvalidOption`.
Check = Callable[[str, Any], Any]

NAME_LENGTH = 128  # characters, of task and queue names: the width of their columns
LOCK_LENGTH = 512  # characters, of locks: an index entry must fit into a third of a page
PRIORITY_RANGE = (-(2**31), 2**31 - 1)  # PostgreSQL's integer
ARGS_BYTES = 200 * 1024 * 1024  # bytes of JSON; jsonb itself refuses 256 MiB

# PostgreSQL stores times that Python cannot hold. One such row could never be read again, neither
# by a program that lists jobs nor by a worker. Two days are left for the session's time zone.
EARLIEST = datetime(1, 1, 3, tzinfo=UTC)
LATEST = datetime(9999, 12, 29, tzinfo=UTC)
MAX_NAMES = 10_000  # queues of one worker
LONGEST_DELAY = timedelta(days=365 * 1000)  # from now, in both directions


def guarded(check: Check, option: str, value: Any) -> Any:
    """Return what a check returns. Whatever the value does, only a `ConfigurationError` is raised.

    A value of the user's own class runs code of theirs when it is compared, iterated or hashed.
    """
    try:
        return check(option, value)
    except ConfigurationError:
        raise
    except BaseException as exc:
        raise InvalidOption(
            f"{option} cannot be {shown(value)}: checking it raises {type_name(exc)}"
        ) from exc


def check_name(option: str, value: Any) -> str:
    """Return a task or queue name, or raise: 1 to 128 characters, no NUL."""
    text = check_text(option, value, NAME_LENGTH)
    if not text:
        raise InvalidOption(f"{option} must not be empty")
    return text


def check_names(option: str, value: Any) -> tuple[str, ...]:
    """Return several names as a tuple, each once, or raise: from 1 to 10,000 of them."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidOption(f"{option} must be a list of names, not {shown(value)}")
    given = [check_name(option, name) for name in islice(value, MAX_NAMES + 1)]
    if len(given) > MAX_NAMES:  # an iterator may have no end
        raise InvalidOption(f"{option} must name at most {MAX_NAMES} of them")
    if not given:
        raise InvalidOption(f"{option} must have at least one name; leave the option out for all")
    return tuple(dict.fromkeys(given))


def check_lock(option: str, value: Any) -> str | None:
    """Return a lock or queueing lock, or raise: None, or up to 512 characters without NUL."""
    return None if value is None else check_text(option, value, LOCK_LENGTH)


def check_text(option: str, value: Any, limit: int) -> str:
    """Return a text of up to ``limit`` characters as a plain ``str``, or raise: it has no NUL."""
    if not isinstance(value, str):
        raise InvalidOption(f"{option} must be a str, not {_with_type(value)}")
    text = str.__str__(value)  # a subclass may override whatever is asked of it
    if len(text) > limit:
        raise InvalidOption(
            f"{option} must have at most {limit} characters, and {shown(text[:40])}… has"
            f" {len(text)}"
        )
    if "\0" in text:
        raise InvalidOption(f"{option} must not contain a NUL character: {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidOption(f"{option} must be valid Unicode text: {shown(text)}") from exc
    return text


def _with_type(value: Any) -> str:
    return f"{type_of(value)} {shown(value)}"


def check_flag(option: str, value: Any) -> bool:
    """Return True or False, or raise for anything else."""
    if not isinstance(value, bool):
        raise InvalidOption(f"{option} must be True or False, not {shown(value)}")
    return value


def check_result(option: str, value: Any) -> bool | Literal["strict"]:
    """Return whether a task's results are kept, or raise: True, False or "strict"."""
    if isinstance(value, bool):
        return value
    if type(value) is str and value == "strict":
        return "strict"
    raise InvalidOption(f'{option} must be True, False or "strict", not {shown(value)}')


def check_int(option: str, value: Any, low: int, high: int) -> int:
    """Return an int between two limits, or raise."""
    if isinstance(value, int) and not isinstance(value, bool):
        number = int.__index__(value)  # a subclass may compare as it likes
        if low <= number <= high:
            return number
    raise InvalidOption(f"{option} must be an int from {low} to {high}, not {shown(value)}")


def check_priority(value: Any) -> int:
    """Return a priority, or raise: an int of 32 bits; larger ones run first."""
    low, high = PRIORITY_RANGE
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidOption(f"priority must be an int, not {_with_type(value)}")
    if not low <= value <= high:
        raise InvalidOption(f"priority must be between {low} and {high}, not {shown(value)}")
    return value


def check_seconds(option: str, value: Any, *, zero: bool = False) -> float:
    """Return a number of seconds up to 1000 years, or raise: above 0, or from 0."""
    seconds = _finite(value)
    if seconds is None or seconds < 0 or (seconds == 0 and not zero):
        least = "from 0" if zero else "above 0"
        raise InvalidOption(f"{option} must be a number of seconds {least}, not {shown(value)}")
    if seconds > LONGEST_DELAY.total_seconds():  # else the server could not compute with it
        raise InvalidOption(f"{option} must be at most 1000 years, not {shown(value)} seconds")
    return seconds


def _finite(value: Any) -> int | float | None:
    """Return a real number as Python's own int or float; None if it is none, or not finite."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):  # of any size: some are too large for a float
        return int.__index__(value)
    if isinstance(value, float) and math.isfinite(value):
        return float.__pos__(value)
    return None


def check_fraction(option: str, value: Any) -> float:
    """Return a number from 0 to 1, or raise."""
    fraction = _finite(value)
    if fraction is None or not 0 <= fraction <= 1:
        raise InvalidOption(f"{option} must be a number from 0 to 1, not {shown(value)}")
    return float(fraction)


def check_aware(option: str, value: Any) -> datetime:
    """Return a date and time that has a time zone, or raise `InvalidTimestamp`."""
    if not isinstance(value, datetime):
        raise InvalidTimestamp(f"{option} must be a datetime, not {_with_type(value)}")
    try:
        text, offset = value.isoformat(), value.utcoffset()
        fits = offset is not None and EARLIEST <= value <= LATEST
    except Exception as exc:
        raise InvalidTimestamp(f"{option} has a time zone that fails: {headline_of(exc)}") from exc
    if offset is None:
        raise InvalidTimestamp(
            f"{option} must have a time zone, and {text!r} has none:"
            " use for instance datetime.now(timezone.utc)"
        )
    if not fits:
        raise InvalidTimestamp(
            f"{option} must lie between the years 1 and 9999 in every time zone, and"
            f" {text!r} does not"
        )
    return value


def check_delta(option: str, value: Any) -> timedelta:
    """Return a timedelta, given as such or as a dict of its arguments, or raise."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, dict):
        raise InvalidOption(
            f"{option} must be a timedelta or a dict of its arguments, not {_with_type(value)}"
        )
    try:
        return timedelta(**value)
    except Exception as exc:  # ValueError: not a number; a number of the user's own raises anything
        raise InvalidOption(f"{option} is no duration: {shown(value)} ({message_of(exc)})") from exc


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
    seconds = _finite(value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds is None or not 0 < seconds <= sys.float_info.max:
        raise InvalidOption(
            f"{option} must be a number of seconds above 0 or such a timedelta, not {shown(value)}"
        )
    return float(seconds)


def check_wait(option: str, value: Any) -> float | None:
    """Return how long to wait, given as seconds or a timedelta, or raise: from 0 on.

    None and infinity have no limit, and None is returned for them.
    """
    if value is None or (isinstance(value, float) and float.__pos__(value) == math.inf):
        return None
    seconds = _finite(value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds is None or not 0 <= seconds <= sys.float_info.max:
        raise InvalidOption(
            f"{option} must be a number of seconds (0 or more), a timedelta, or None,"
            f" not {shown(value)}"
        )
    return float(seconds) + 0.0  # minus zero is zero


def microseconds(delta: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return delta // timedelta(microseconds=1)
