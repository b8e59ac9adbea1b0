"""How far a running job says that it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from procrastinate.errors import InvalidArguments
from procrastinate.model import checks
from procrastinate.model.text.json_text import Unfit, checked_text

LARGEST_DATA = 8 * 1024  # bytes of JSON in UTF-8
MESSAGE_LENGTH = 1_000  # characters
WHOLE = 1_000_000  # millionths


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running job last said about itself with `JobContext.progress`.

    ``fraction`` is from 0 to 1, to six places. ``data`` is what it gave by name. ``updated_at``
    (aware, in UTC) is when it said so, by the clock of the database.
    """

    fraction: float
    message: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The same on its way to the database. ``data`` is JSON; ``said_at`` is a monotonic clock's."""

    millionths: int
    message: str | None
    data: str | None
    said_at: float


def report(
    fraction: Any,
    message: Any,
    data: dict[str, Any],
    *,
    said_at: float,
    dumps: Callable[[Any], str],
) -> Report:
    """Return what a job says of itself. Raises `InvalidOption` and `InvalidArguments`."""
    return Report(
        round(checks.check_fraction("fraction", fraction) * WHOLE),
        None if message is None else checks.check_text("message", message, MESSAGE_LENGTH),
        _json(data, dumps) if data else None,
        said_at,
    )


def _json(data: dict[str, Any], dumps: Callable[[Any], str]) -> str:
    try:
        return checked_text(data, dumps, largest=LARGEST_DATA)
    except Unfit as exc:
        names = ", ".join(map(repr, data))
        raise InvalidArguments(
            f"the data {names} of a report of progress cannot be kept: {exc}"
        ) from exc
