"""Failures in groups: the same task, type of error and text, but for numbers and names in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from procrastinate.model.monitoring.search import Count
from procrastinate.model.text.failure import headline

if TYPE_CHECKING:
    from procrastinate.app.job_filters import JobFilters

ANY = "*"  # in the text of an error: any text, also in the filter `error`
TEXT_LENGTH = 200  # characters of a message's first line that tell one failure from another

#: What differs between errors of one kind: a text in quotes, an address or a UUID, a number.
_VARIES = re.compile(
    r"""'[^']*' | "[^"]*" | `[^`]*` | «[^»]*» | “[^”]*”
      | \b0[xX][0-9a-fA-F]+\b
      | \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b
      | \b(?=[a-f]*[0-9])[0-9a-f]{7,}\b | \b(?=[A-F]*[0-9])[0-9A-F]{7,}\b
      | [0-9]+(?:[.,:][0-9]+)*""",
    re.VERBOSE,
)
_SEVERAL = re.compile(r"\*[*]+")


def normalised(message: str | None) -> str:
    """Return the first line of an error's message with `ANY` for what differs from job to job."""
    first = (message or "").strip().partition("\n")[0].strip()[:TEXT_LENGTH]
    return _SEVERAL.sub(ANY, _VARIES.sub(ANY, first))


def pattern(text: str) -> str:
    """Return the pattern of SQL's LIKE that finds a text within another one."""
    escaped = re.sub(r"([\\%_])", r"\\\1", text)
    return f"%{escaped.replace(ANY, '%')}%"


@dataclass(frozen=True)
class FailureGroup:
    """Jobs of one task that failed in the same way. All times are aware, in UTC.

    ``error_type`` and ``error_text`` are of their last errors. The text is the first line of the
    message, with ``*`` for numbers, addresses and what is in quotes. ``count`` is how many were
    found among the failed jobs that were read. The first and the last of them ended at
    ``first_at`` and ``last_at``; ``newest_job_id`` is the one that was deferred last.
    """

    task_name: str
    error_type: str
    error_text: str
    count: Count
    first_at: datetime | None
    last_at: datetime | None
    newest_job_id: int

    @property
    def filters(self) -> JobFilters:
        """The filters that find these jobs, and none that failed later than the last of them.

        They find more than the group has if a longer text has that of the group in it.
        """
        found: JobFilters = {"task": self.task_name, "state": "failed"}
        error = headline(self.error_type or None, self.error_text or None)
        if error:
            found["error"] = error
        if self.last_at is not None:
            found["until"] = self.last_at + timedelta(microseconds=1)
        return found


def grouped(found: Iterable[FailureGroup]) -> list[FailureGroup]:
    """Join groups that are the same, and return all, that of the latest failure first."""
    groups: dict[tuple[str, str, str], FailureGroup] = {}
    for each in found:
        key = (each.task_name, each.error_type, each.error_text)
        groups[key] = _joined(groups[key], each) if key in groups else each
    return sorted(groups.values(), key=_lateness, reverse=True)


def _joined(one: FailureGroup, other: FailureGroup) -> FailureGroup:
    return FailureGroup(
        one.task_name,
        one.error_type,
        one.error_text,
        one.count + other.count,
        min(_known(one.first_at, other.first_at), default=None),
        max(_known(one.last_at, other.last_at), default=None),
        max(one.newest_job_id, other.newest_job_id),
    )


def _known(*moments: datetime | None) -> list[datetime]:
    return [each for each in moments if each is not None]


def _lateness(group: FailureGroup) -> tuple[bool, float, int]:
    last = group.last_at
    return last is not None, last.timestamp() if last else 0.0, group.newest_job_id
