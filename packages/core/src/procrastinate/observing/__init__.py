"""Watching jobs: `Observer`, and the events that it is told.

``safe_log`` and ``job_log`` are what procrastinate itself logs about jobs: the first observer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate import later
from procrastinate.observing.observer import Observer

if TYPE_CHECKING:
    from procrastinate.observing.events import (
        Attempted,
        Busy,
        Changed,
        Claimed,
        Deferred,
        Ended,
        LeaseLost,
        Paused,
        Raised,
        Recovered,
        Requeued,
        Started,
        TakenOver,
        WorkerStarted,
        WorkerStopped,
    )

__all__ = [
    "Attempted",
    "Busy",
    "Changed",
    "Claimed",
    "Deferred",
    "Ended",
    "LeaseLost",
    "Observer",
    "Paused",
    "Raised",
    "Recovered",
    "Requeued",
    "Started",
    "TakenOver",
    "WorkerStarted",
    "WorkerStopped",
]

if not TYPE_CHECKING:
    # Programs without an observer do not import the events.
    __getattr__ = later.imported(
        __name__, {name: "events" for name in __all__ if name != "Observer"}
    )
