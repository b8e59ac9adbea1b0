"""Telling observers of jobs that were changed by hand."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from procrastinate.observing.observers import Observers

#: What was done, as events call it.
What = Literal["cancelled", "retried", "deleted"]


class Changes:
    """What one call changes: tell it the ids once a change of some of them is written.

    ``asked`` gets the ids of running jobs that were asked to end.
    """

    def __init__(self, observers: Observers, what: What, *, in_transaction: bool) -> None:
        self._observers = observers
        self._what = what
        self._in_transaction = in_transaction
        self.asked: set[int] = set()

    def made(self, ids: Collection[int]) -> None:
        """Tell that these jobs were changed."""
        if not ids or not self._observers.sees("on_changed"):
            return
        asked = self.asked.intersection(ids)
        self.asked.clear()
        self._tell(self._what, set(ids) - asked)
        self._tell("abort requested", asked)

    def _tell(self, what: Literal[What, "abort requested"], ids: Collection[int]) -> None:
        if ids:
            from procrastinate.observing.events import Changed  # if anybody watches

            event = Changed(what, tuple(sorted(ids)), self._in_transaction)
            self._observers.tell("on_changed", event)
