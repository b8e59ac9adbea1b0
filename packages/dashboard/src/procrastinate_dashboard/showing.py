"""Values as people read them: numbers, times, ages, and text that came from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from procrastinate.model.text import printable

#: Characters of a long text that a page shows; the whole is behind a link.
BLOCK = 20_000
#: What stands for a value that is not there.
NOTHING = "\N{EN DASH}"
MINUTE, HOUR, DAY = 60, 3600, 86_400


def line(text: Any, limit: int = 120) -> str:
    """Return a text as one line, its control characters escaped, and cut."""
    return printable.line(str(text), limit)


def block(text: Any, limit: int | None = BLOCK) -> str:
    """Return a text of several lines, escaped, and cut if it is very long."""
    whole = str(text)
    return printable.block(whole if limit is None else printable.cut(whole, limit), indent="")


def short(name: str) -> str:
    """Return the name of an error's type without its modules."""
    return name.rpartition(".")[2] or name


def number(value: Any) -> str:
    """Return a number or a `Count` with separators."""
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def moment(time: datetime | None) -> str:
    """Return a time to the second, in UTC."""
    return NOTHING if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso(time: datetime) -> str:
    """Return a time as the attribute ``datetime`` of an element has it."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lasting(length: timedelta | float | None) -> str:
    """Return a length of time in one or two units: 840 ms, 3.2 s, 4 min 10 s, 3 h 5 min, 12 d."""
    if length is None:
        return NOTHING
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 0:
        return f"-{lasting(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return _in_units(int(seconds))


def _in_units(seconds: int) -> str:
    if seconds < MINUTE:
        return f"{seconds} s"
    if seconds < HOUR:
        return _two(seconds // MINUTE, "min", seconds % MINUTE if seconds < 10 * MINUTE else 0, "s")
    if seconds < DAY:
        return _two(seconds // HOUR, "h", seconds % HOUR // MINUTE, "min")
    return _two(seconds // DAY, "d", seconds % DAY // HOUR if seconds < 10 * DAY else 0, "h")


def _two(large: int, unit: str, small: int, smaller: str) -> str:
    return f"{large:,} {unit}" + (f" {small} {smaller}" if small else "")


def ago(time: datetime | None, now: datetime) -> str:
    """Return how long ago a time was, or how far ahead it is, in one unit."""
    if time is None:
        return NOTHING
    seconds = int((now - time).total_seconds())
    if not seconds:
        return "now"
    return f"in {_in_unit(-seconds)}" if seconds < 0 else f"{_in_unit(seconds)} ago"


def old(seconds: float) -> str:
    """Return how long ago something was that is this old, in one unit."""
    return f"{_in_unit(int(seconds))} ago" if seconds >= 1 else "now"


def _in_unit(seconds: int) -> str:
    for length, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= length:
            return f"{seconds // length:,} {unit}"
    return f"{seconds} s"


def pretty(value: Any) -> str:
    """Return a value as indented JSON, or as its repr if it is something else."""
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, default=printable.shown)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, or a circle
        return printable.shown(value, BLOCK)


def compact(value: Any, limit: int = 100) -> str:
    """Return arguments as one short line: ``to="a@b.c", retry=3``."""
    if not isinstance(value, dict):
        return line(pretty(value), limit)
    parts, room = [], limit
    for name, each in value.items():
        parts.append(f"{line(name, 40)}={_short(each, min(room, 60))}")
        room -= len(parts[-1]) + 2
        if room <= 0:
            break
    text = ", ".join(parts)
    return text if len(parts) == len(value) and len(text) <= limit else text[:limit] + " …"


def _short(value: Any, room: int) -> str:
    if isinstance(value, str):
        value = value[: max(room, 1) + 1]
    text = line(json.dumps(value, ensure_ascii=False, default=printable.shown), 10_000)
    return text if len(text) <= max(room, 8) else text[: max(room, 8)] + "…"


counted = printable.counted

FILTERS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        line,
        block,
        short,
        number,
        moment,
        iso,
        lasting,
        ago,
        old,
        pretty,
        compact,
        counted,
    )
}
