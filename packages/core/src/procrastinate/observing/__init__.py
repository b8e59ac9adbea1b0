"""Watching jobs: `Observer`, and the events that it is told.

``safe_log`` and ``job_log`` are what procrastinate itself logs about jobs: the first observer.
"""

from __future__ import annotations

from procrastinate.observing.events import (
    Attempted,
    Busy,
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
from procrastinate.observing.observer import Observer

__all__ = [
    "Attempted",
    "Busy",
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
