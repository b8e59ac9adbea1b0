"""Metrics over HTTP, if a package brings them: the entry points of ``procrastinate.metrics``.

Core knows no format and counts nothing for it. It asks the package for an observer of a worker's
jobs, and for the text of what that has counted.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

from procrastinate import connectors
from procrastinate.observing.observer import Observer
from procrastinate.observing.observers import Observers

GROUP = "procrastinate.metrics"
PUBLISHED = "procrastinate-prometheus"


class Exposition(Protocol):
    """What a package brings: the object of its entry point."""

    def observer(self) -> Observer:
        """Return what counts a worker's jobs in this process."""

    def text(self, accept: str) -> tuple[str, bytes]:
        """Return the content type and the text of all metrics of this process."""

    def text_of_children(self, folder: str, accept: str) -> tuple[str, bytes]:
        """Return the same for processes that count in a folder, added up."""

    def count_in(self, folder: str, number: int) -> None:
        """Let this process, which has a number among its siblings, count in a folder.

        It is called before anything is counted. What an earlier process of the same number has
        counted there goes on.
        """

    def ended(self, folder: str, number: int) -> None:
        """Forget what was true only while a process lived."""


@functools.cache
def exposition() -> Exposition | None:
    """Return what an installed package brings, or None.

    Raises `ConnectorConflict` if several packages do, and `ConnectorBroken` for one that cannot be
    imported.
    """
    found = [each for several in connectors.entry_points(GROUP).values() for each in several]
    if not found:
        return None
    loaded: Any = connectors.load(connectors.only_one(found, "metrics"), "metrics")
    exposition: Exposition = loaded
    return exposition


def exposed(observers: Observers) -> Observers:
    """Return observers together with the installed package's, if it is not among them."""
    found = exposition()
    if found is None:
        return observers
    observer = found.observer()
    if any(type(each) is type(observer) for each in observers.given):
        return observers
    return Observers([*observers.given, observer])
