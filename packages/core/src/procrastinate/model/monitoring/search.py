"""A search that reads a bounded number of jobs: its order, its pages, and how it goes on.

Rules

1. A search is a row of walks, each along one index of the table. What has not ended comes first, in
   the order in which it runs; what ended comes from the newest on, by id.
2. A walk stops at the last job of a page, or when as many jobs were looked at as the search may
   read. The cursor says where it stopped, by the key of the last job that it looked at.
3. An index is in order within one partition. A walk in order of id or time merges all of them. The
   order of queues and locks is the database's own, so those walks take one partition at a time.
"""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.job import Job, Status
from procrastinate.model.partitions import Partitions
from procrastinate.model.text.printable import shown

#: Where a walk is: what its index is ordered by, of the last job that it looked at.
Key: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Count:
    """A number of jobs. If it is not complete there are at least as many: counting stopped."""

    value: int
    is_complete: bool = True

    def __str__(self) -> str:
        return f"{self.value:,}{'' if self.is_complete else '+'}"

    def __add__(self, other: Count) -> Count:
        return Count(self.value + other.value, self.is_complete and other.is_complete)


@dataclass(frozen=True)
class JobPage:
    """A page of a search.

    ``cursor`` is what shows the next page, and None at the end. ``looked_at`` is how many jobs were
    read. ``is_complete`` is False if the search stopped because it may not read more, before the
    page was full: there may be more, which the next page shows.
    """

    jobs: list[Job]
    cursor: str | None
    looked_at: int
    is_complete: bool


class Walk(enum.StrEnum):
    """A walk along an index; the value is in cursors."""

    IDS = "ids"
    RUNNING = "running"
    READY = "ready"
    SCHEDULED = "scheduled"
    BEHIND_LOCKS = "behind-locks"
    NEWEST_ENDED = "ended"  # but for those that succeeded: there is no index of them
    NEWEST = "newest"

    @property
    def fields(self) -> Sequence[str]:
        """What its index is ordered by, as `Reached` names it."""
        return _FIELDS.get(self, ("id",))

    @property
    def merges(self) -> bool:
        """Whether it walks through all partitions at once."""
        return self not in (Walk.READY, Walk.BEHIND_LOCKS)


_FIELDS: Mapping[Walk, Sequence[str]] = {
    Walk.RUNNING: ("moment", "id"),
    Walk.SCHEDULED: ("moment", "id"),
    Walk.READY: ("queue", "priority", "id"),
    Walk.BEHIND_LOCKS: ("lock", "queue", "priority", "id"),
}
_BY_HOLD = {"": Walk.READY, "schedule": Walk.SCHEDULED, "lock": Walk.BEHIND_LOCKS}


def walks(
    *, by_id: bool, statuses: Sequence[Status] | None, holds: Sequence[str] | None
) -> list[tuple[Walk, list[Status] | None]]:
    """Return the walks of a search, each with the statuses that it is about (None: all)."""
    if by_id:
        return [(Walk.IDS, None if statuses is None else list(statuses))]
    if statuses is None:
        return [(Walk.NEWEST, None)]
    found: list[tuple[Walk, list[Status] | None]] = []
    if Status.DOING in statuses:
        found.append((Walk.RUNNING, [Status.DOING]))
    if Status.TODO in statuses:
        waiting = [walk for hold, walk in _BY_HOLD.items() if holds is None or hold in holds]
        found += [(walk, [Status.TODO]) for walk in waiting]
    ended = [status for status in Status if status.is_final and status in statuses]
    if Status.SUCCEEDED in ended:
        found.append((Walk.NEWEST, ended))
    elif ended:
        found.append((Walk.NEWEST_ENDED, ended))
    return found


@dataclass(frozen=True, slots=True)
class Stop:
    """A walk through some partitions, for jobs of these statuses (None: all)."""

    walk: Walk
    partitions: Sequence[int]
    statuses: Sequence[Status] | None

    @property
    def name(self) -> list[Any]:
        """What a cursor calls it."""
        return [self.walk.value, None if self.walk.merges else self.partitions[0]]


def stops(
    found: Sequence[tuple[Walk, Sequence[Status] | None]], partitions: Partitions
) -> list[Stop]:
    """Return the stops of walks, in their order."""
    every = partitions.values
    return [
        Stop(walk, some, statuses)
        for walk, statuses in found
        for some in ([every] if walk.merges else [[each] for each in every])
    ]


@dataclass(frozen=True, slots=True)
class Slice:
    """What a walk found in one partition: matching jobs, and the key of the last that it read.

    ``last`` is None if it has read nothing. ``matching`` is how many match, shown or not.
    """

    jobs: Sequence[Job]
    looked_at: int
    at_end: bool
    last: Key | None
    matching: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """What a walk found in its partitions, and where it goes on (None: it is at its end).

    ``still_open`` says which of the slices have to be read further, by their places.
    """

    jobs: Sequence[Job]
    looked_at: int
    goes_on: Key | None
    still_open: Sequence[int]


def merged(walk: Walk, slices: Sequence[Slice], limit: int) -> Round:
    """Return the first jobs of several slices.

    Jobs behind the point up to which each partition was read are left for the next round: another
    partition may have jobs before them.
    """
    looked_at = sum(each.looked_at for each in slices)
    if len(slices) == 1:
        (only,) = slices
        goes_on = None if only.at_end else only.last
        return Round(only.jobs, looked_at, goes_on, [] if only.at_end else [0])
    order = _order(walk)
    open_ends = [order(each.last) for each in slices if not each.at_end and each.last is not None]
    horizon = min(open_ends, default=None)
    every = (job for each in slices for job in each.jobs)
    ranked = sorted((_rank(walk, job), job.id, job) for job in every)
    within = [job for rank, _, job in ranked if horizon is None or rank <= horizon]
    shown = within[:limit]
    ids = {job.id for job in shown}
    still_open = [
        place
        for place, each in enumerate(slices)
        if not each.at_end or any(job.id not in ids for job in each.jobs)
    ]
    if not still_open:
        return Round(shown, looked_at, None, [])
    if len(within) > limit:
        return Round(shown, looked_at, _places[walk](shown[-1]), still_open)
    assert horizon is not None
    return Round(shown, looked_at, order(horizon), still_open)  # a key again: it turns round twice


def _rank(walk: Walk, job: Job) -> Key:
    return _order(walk)(_places[walk](job))


def _order(walk: Walk) -> Callable[[Key], Key]:
    """Return what makes of a key one that rises along a walk that merges partitions."""
    return _rising if walk in _FIELDS else _falling


def _rising(key: Key) -> Key:
    return key


def _falling(key: Key) -> Key:
    return (-key[0],)


def _by_id(job: Job) -> Key:
    return (job.id,)


#: The key of a job, by the walk that finds it.
_places: Mapping[Walk, Callable[[Job], Key]] = {
    Walk.IDS: _by_id,
    Walk.NEWEST: _by_id,
    Walk.NEWEST_ENDED: _by_id,
    Walk.RUNNING: lambda job: (job.started_at or job.deferred_at, job.id),
    Walk.SCHEDULED: lambda job: (job.scheduled_at, job.id),
}


# Cursors


def cursor(stop: Stop, key: Key | None) -> str:
    """Return a text that says where a search is: at the beginning of a stop, or behind a key."""
    values = [each.isoformat() if isinstance(each, datetime) else each for each in key or ()]
    text = json.dumps([*stop.name, *values], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def located(text: str | None, among: Sequence[Stop]) -> tuple[int, Key | None]:
    """Return at which stop a cursor is, and behind which key. Raises `InvalidOption`."""
    if text is None:
        return 0, None
    try:
        name, key = _decoded(text)
        place = next(place for place, stop in enumerate(among) if stop.name == name)
        return place, _checked(among[place].walk, key)
    except (ValueError, TypeError, StopIteration, RecursionError) as exc:
        raise InvalidOption(
            f"cursor must be that of a page of the same search (same filters), not {shown(text)}"
        ) from exc


def _decoded(text: str) -> tuple[list[Any], list[Any]]:
    padded = text.encode("ascii") + b"=" * (-len(text) % 4)
    walk, partition, *key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    return [walk, partition], key


def _checked(walk: Walk, key: Sequence[Any]) -> Key | None:
    if not key:
        return None
    return tuple(_READERS[field](value) for field, value in zip(walk.fields, key, strict=True))


def _number(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value < high:
            raise ValueError(value)
        return value

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    value.encode()
    return value


def _moment(value: Any) -> datetime:
    return checks.check_aware("the moment", datetime.fromisoformat(value))


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "id": _number(-1, 2**63),
    "priority": _number(-(2**31), 2**31),
    "queue": _text,
    "lock": _text,
    "moment": _moment,
}
