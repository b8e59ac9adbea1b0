"""The clock of an in-memory connector, which a test may stop and move."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from procrastinate.model import limits


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

    def freeze(self, at: datetime | None = None) -> datetime:
        """Stop the clock, at ``at`` or where it stands, and return the time that it shows.

        Raises `InvalidTimestamp` for a naive ``at``.
        """
        if at is not None:
            limits.check_aware("at", at)
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

    def move(self, by: timedelta | float = 0, **more: float) -> datetime:
        """Move the clock, frozen or not, and return the new time.

        By a timedelta, by seconds, or by a timedelta's arguments: ``move(hours=1, minutes=30)``.
        A negative one moves it back; jobs that were made ready stay so.
        """
        delta = by if isinstance(by, timedelta) else timedelta(seconds=by)
        delta += timedelta(**more)
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
