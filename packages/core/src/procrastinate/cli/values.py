"""Kinds of option values: names, lists of queues, durations, dates and times."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import click

from procrastinate.app.job_filters import ERROR_LENGTH
from procrastinate.errors import InvalidOption, InvalidTimestamp
from procrastinate.model import checks

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # takes no argument in older releases of click

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[wdhms])+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)([wdhms])", re.ASCII)
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?", re.ASCII)
_SECONDS = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


class Name(_ParamType):
    """A name (of a queue or a task) or a lock, as one of `checks` allows it."""

    name = "text"

    def __init__(self, what: str, check: Callable[[str, Any], str | None]) -> None:
        self._what = what
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self._check(self._what, value)
        except InvalidOption as exc:
            self.fail(str(exc), param, ctx)
        return str(value)


class Id(_ParamType):
    """The id of a job or a worker: a positive number, as PostgreSQL's bigint holds it."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 2**63:
            return int(text)
        self.fail(f"{text!r} is no id, which is a number such as 12", param, ctx)


class Queues(_ParamType):
    """Names separated by commas; the option may be given several times."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        if not value.strip():
            self.fail("names no queue; leave the option out for all queues", param, ctx)
        try:
            return tuple(checks.check_name("queue", name.strip()) for name in value.split(","))
        except InvalidOption as exc:
            self.fail(f"{value!r}: {exc}", param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return [rv]  # click would split at spaces, which names may contain


class Duration(_ParamType):
    """Seconds as a number, or weeks, days, hours, minutes and seconds: 90, 5m, 1h30m, 2d."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        text = value.strip().lower()
        try:
            if _SECONDS.fullmatch(text):
                return timedelta(seconds=float(text))
            if _DURATION.fullmatch(text):
                return sum((_part(*found) for found in _PART.findall(text)), timedelta())
        except OverflowError:
            self.fail(f"{value!r} is too long", param, ctx)
        self.fail(f"{value!r} is no duration; write seconds (90), or 5m, 1h30m, 2d", param, ctx)


def _part(number: str, unit: str) -> timedelta:
    return timedelta(**{_UNITS[unit]: float(number)})


class Moment(_ParamType):
    """A date and time in ISO 8601 with its time zone: 2030-01-31T08:00:00+01:00, or Z for UTC."""

    name = "date and time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        try:
            moment = _parsed(value)
        except ValueError:
            self.fail(
                f"{value!r} is no date and time in ISO 8601, such as 2030-01-31T08:00:00Z",
                param,
                ctx,
            )
        if moment.tzinfo is None:
            self.fail(
                f"{value!r} has no time zone; add one, as in 2030-01-31T08:00+01:00, or Z for UTC",
                param,
                ctx,
            )
        try:
            return checks.check_aware("the time", moment)
        except InvalidTimestamp as exc:
            self.fail(str(exc), param, ctx)


class Coming(Moment):
    """A moment, or a duration from now: 2h, 1h30m, 2d."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        low = value.strip().lower() if isinstance(value, str) else ""
        if not _DURATION.fullmatch(low):
            return super().convert(value, param, ctx)
        try:
            return datetime.now(UTC) + Duration().convert(low, param, ctx)
        except OverflowError:
            self.fail(f"{value!r} is too long", param, ctx)


class Past(_ParamType):
    """A time that has been: ISO 8601, a time of the day, a duration ago, today or yesterday.

    Without a zone it is local time. A time of the day is that of today, or of yesterday if it is
    still to come.
    """

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return checks.check_aware("the time", past(value, datetime.now().astimezone()))
        except (ValueError, OverflowError, OSError, InvalidTimestamp):
            self.fail(
                f"{value!r} is no time: write 2h (ago), 14:00, today, yesterday, or ISO 8601, such"
                " as 2030-01-31T08:00 (local time) or 2030-01-31T08:00Z",
                param,
                ctx,
            )


def past(text: str, now: datetime) -> datetime:
    """Return the time that a text means, ``now`` (aware, local). Raises ValueError."""
    text = text.strip()
    low = text.lower()
    if low in ("now", "today", "yesterday"):
        if low == "now":
            return now
        day = now.date() - timedelta(days=low == "yesterday")
        return datetime.combine(day, time.min).astimezone()
    if _DURATION.fullmatch(low):
        return now - sum((_part(*found) for found in _PART.findall(low)), timedelta())
    if _CLOCK.fullmatch(text):
        clock = time.fromisoformat(text.zfill(5) if text.count(":") == 1 else text.zfill(8))
        at = datetime.combine(now.date(), clock).astimezone()
        if at <= now:
            return at
        return datetime.combine(now.date() - timedelta(days=1), clock).astimezone()
    return datetime.fromisoformat(text).astimezone()


class ErrorText(_ParamType):
    """A part of an error's text."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            text = checks.check_text("error", value, ERROR_LENGTH)
        except InvalidOption as exc:
            self.fail(str(exc), param, ctx)
        return text or self.fail("must not be empty", param, ctx)


def _parsed(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value.strip())
