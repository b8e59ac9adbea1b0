"""Paused queues: no worker starts a job of theirs."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from procrastinate.model.queue_names import EVERY_QUEUE as EVERY_QUEUE
from procrastinate.model.queue_names import SPARED as SPARED


def are_pauses_of(names: Container[str], queue: str) -> bool:
    """Whether one of the pauses with these names covers a queue."""
    return queue in names or (EVERY_QUEUE in names and queue != SPARED)


@dataclass(frozen=True)
class Pause:
    """A pause of a queue, which is in force. All times are aware, in UTC, by the server's clock.

    ``queue`` is ``"*"`` if every queue is paused, except ``builtin``. ``until`` is when the pause
    ends by itself; None if the queue must be resumed by hand. ``by`` and ``reason`` are what was
    said of it.
    """

    queue: str
    paused_at: datetime
    until: datetime | None = None
    by: str | None = None
    reason: str | None = None

    def covers(self, queue: str) -> bool:
        """Whether it is a pause of this queue."""
        return are_pauses_of((self.queue,), queue)


@dataclass(frozen=True)
class Pauses:
    """The pauses that are in force. It is false if there are none."""

    pauses: tuple[Pause, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pauses)

    @property
    def names(self) -> list[str]:
        """The names that the pauses have, ``"*"`` among them: what statements are told."""
        return [each.queue for each in self.pauses]

    def has(self, queue: str) -> bool:
        """Whether a queue is paused: one of the pauses covers it."""
        return are_pauses_of(self._names, queue)

    @cached_property
    def _names(self) -> frozenset[str]:  # there may be thousands
        return frozenset(self.names)

    def running(self, queues: Iterable[str]) -> Sequence[str]:
        """Return those of these queues that are not paused, in their order."""
        return [queue for queue in queues if not self.has(queue)]


NO_PAUSES = Pauses()
