"""Reading a timestamptz that comes as text, in each DateStyle: for a connection of a caller's.

In ISO style it comes with its offset. In the others it comes with the abbreviation of a time zone,
such as CET. That has a meaning only in the session's own time zone, which the server reports.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

_TIME = r"(?P<time>\d\d:\d\d:\d\d(?:\.\d+)?)"
_ZONE = r" ?(?P<zone>\S+)"
_NUMBERS = re.compile(
    rf"(?P<first>\d\d)(?P<sign>[./])(?P<second>\d\d)[./](?P<year>\d{{4}}) {_TIME}{_ZONE}"
)
_NAMES = re.compile(
    rf"\w{{3}} (?:(?P<month>[A-Z]\w\w) (?P<day>\d\d)|(?P<day2>\d\d) (?P<month2>[A-Z]\w\w))"
    rf" {_TIME} (?P<year>\d{{4}}){_ZONE}"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?:?(?P<seconds>\d\d)?")


def moment(text: str, *, style: str, zone: str) -> datetime:
    """Return a timestamptz, with its offset.

    ``style`` and ``zone`` are the session's DateStyle and TimeZone. Raises ValueError.
    """
    if style.startswith("ISO"):
        return datetime.fromisoformat(text)
    match = _NUMBERS.fullmatch(text) or _NAMES.fullmatch(text)
    if match is None:
        raise ValueError(_unreadable(text, style))
    if match.re is _NAMES:
        month = _MONTHS.index(match["month"] or match["month2"]) + 1
        day = int(match["day"] or match["day2"])
    else:
        day, month = int(match["first"]), int(match["second"])
        if match["sign"] == "/" and "DMY" not in style:
            day, month = month, day
    local = datetime.fromisoformat(f"{match['year']}-{month:02}-{day:02} {match['time']}")
    offset = _offset(local, match["zone"], zone)
    if offset is None:
        raise ValueError(_unreadable(text, style))
    return local.replace(tzinfo=timezone(offset) if offset else UTC)


def _offset(local: datetime, abbreviation: str, zone: str) -> timedelta | None:
    if abbreviation in ("UTC", "GMT"):
        return timedelta()
    if numbers := _OFFSET.fullmatch(abbreviation):
        offset = timedelta(
            hours=int(numbers["hours"]),
            minutes=int(numbers["minutes"] or 0),
            seconds=int(numbers["seconds"] or 0),
        )
        return -offset if numbers["sign"] == "-" else offset
    try:
        there = ZoneInfo(zone)
    except (ValueError, OSError, KeyError):  # such as a zone by its rule
        return None
    for fold in (0, 1):  # the hour that comes twice when summer time ends
        at = local.replace(tzinfo=there, fold=fold)
        if at.tzname() == abbreviation:
            return at.utcoffset()
    return None


def _unreadable(text: str, style: str) -> str:
    return f"the time {text!r} cannot be read in DateStyle {style!r}: SET datestyle = 'ISO'"
