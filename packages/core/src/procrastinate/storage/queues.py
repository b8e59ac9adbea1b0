"""Flows that pause queues, resume them, and read which are paused (see ``sql/queues.sql``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from procrastinate.connector import Row
from procrastinate.drive import Flow, Request
from procrastinate.errors import InvalidOption
from procrastinate.model.queues import NO_PAUSES, Pause, Pauses

#: Where workers hear that a pause has begun, changed or ended; the payload is the name in it.
CHANNEL = "procrastinate_pauses"


def pause_queue(
    queue: str, *, until: datetime | None, by: str | None, reason: str | None
) -> Flow[Pause]:
    """Pause a queue and tell the workers. Needs a transaction. Raises `InvalidOption`."""
    rows = yield Request("pause_queue", queue_name=queue, until=until, by=by, reason=reason)
    if not rows:
        raise InvalidOption(f"until must lie in the future, and {until} does not")
    yield Request("drop_ended_pauses")
    yield _tell(queue)
    return _pause_from(rows[0])


def resume_queue(queue: str) -> Flow[bool]:
    """End the pause of a queue and tell the workers; return whether it was paused."""
    rows = yield Request("resume_queue", queue_name=queue)
    was_paused = bool(rows and rows[0][0])
    if was_paused:
        yield _tell(queue)
    return was_paused


def _tell(queue: str) -> Request:
    return Request("notify", channels=[CHANNEL], payloads=[queue])


def list_pauses() -> Flow[list[Pause]]:
    """Return the pauses that are in force, in order of the queues' names."""
    rows = yield Request("list_pauses")
    return [_pause_from(row) for row in rows]


@dataclass(frozen=True, slots=True)
class InForce:
    """The pauses that are in force, and the seconds until the first of them ends by itself."""

    pauses: Pauses
    seconds: float | None


def pauses_in_force() -> Flow[InForce]:
    """Read which queues are paused, for a worker."""
    rows = yield Request("list_pauses")
    if not rows:
        return InForce(NO_PAUSES, None)
    ends = [row[-1] for row in rows if row[-1] is not None]
    return InForce(Pauses(tuple(map(_pause_from, rows))), min(ends, default=None))


def _pause_from(row: Row) -> Pause:
    queue, paused_at, until, by, reason, *_ = row
    ends_at = None if until is None else until.astimezone(UTC)
    return Pause(queue, paused_at.astimezone(UTC), ends_at, by, reason)
