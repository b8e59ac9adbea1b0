"""Watching jobs: `Observer`, and the events that it is told.

``safe_log`` and ``job_log`` are what procrastinate itself logs about jobs: the first observer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

    def __getattr__(name: str) -> Any:
        """Return an event's class, which programs that nobody watches do not import."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from procrastinate.observing import events

        return getattr(events, name)
