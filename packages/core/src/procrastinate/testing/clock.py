"""The clock of an in-memory connector, which a test may stop and move."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from procrastinate.errors import InvalidTimestamp
from procrastinate.model import checks


class Clock:
    """Tells the time as aware datetimes in UTC: the real one, until it is frozen or moved.

    After every change the jobs whose time has come are made ready, and workers are woken.
    """

    def __init__(self, on_change: Callable[[], object] = lambda: None) -> None:
        self._on_change = on_change
        self._frozen: datetime | None = None
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the time."""
        return self._frozen or datetime.now(UTC) + self._ahead

    @property
    def is_frozen(self) -> bool:
        """Whether the clock stands."""
        return self._frozen is not None

    def freeze(self, at: datetime | None = None) -> datetime:
        """Stop the clock, at ``at`` or where it stands, and return the time that it shows.

        Raises `InvalidTimestamp` for a naive ``at``.
        """
        if at is not None:
            checks.check_aware("at", at)
        self._frozen = (at or self.now()).astimezone(UTC)
        self._on_change()
        return self._frozen

    @contextlib.contextmanager
    def frozen(self, at: datetime | None = None) -> Iterator[datetime]:
        """A block in which the clock stands, at ``at`` or where it stood; then it is as before.

        Raises `InvalidTimestamp` for a naive ``at``.
        """
        before = self._frozen, self._ahead
        try:
            yield self.freeze(at)
        finally:
            self._frozen, self._ahead = before
            self._on_change()

    def move(self, by: timedelta | Mapping[str, float] | float = 0, **more: float) -> datetime:
        """Move the clock, frozen or not, and return the new time.

        By a timedelta, a dict of its arguments, these themselves (``move(hours=1, minutes=30)``),
        or seconds. A negative one moves it back; jobs that were made ready stay so. Raises
        `InvalidOption` if that is no duration, and `InvalidTimestamp` if it leads out of the
        calendar.
        """
        first, second = _duration(by), checks.check_delta("by", more)
        try:
            delta = first + second
            checks.check_aware("the clock", self.now() + delta)
        except OverflowError as exc:
            raise InvalidTimestamp(f"the clock cannot move by {by!r} {more or ''}: {exc}") from exc
        if self._frozen is None:
            self._ahead += delta
        else:
            self._frozen += delta
        self._on_change()
        return self.now()

    def unfreeze(self) -> None:
        """Show the real time again; earlier moves are undone, too."""
        self._frozen = None
        self._ahead = timedelta()
        self._on_change()


def _duration(by: Any) -> timedelta:
    seconds = isinstance(by, int | float) and not isinstance(by, bool)
    return checks.check_delta("by", {"seconds": by} if seconds else by)
