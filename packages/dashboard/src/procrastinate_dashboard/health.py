"""How workers and schedules are, in a word: pure functions of their rows."""

from __future__ import annotations

from datetime import datetime, timedelta

from procrastinate import ScheduleInfo, WorkerInfo

#: A schedule this late has no worker that defers its jobs.
LATE_AFTER = timedelta(minutes=2)


def serves(worker: WorkerInfo, queue: str) -> bool:
    """Whether a worker is alive and takes jobs of a queue."""
    return worker.is_alive and (worker.queues is None or queue in worker.queues)


def state_of(worker: WorkerInfo) -> tuple[str, str]:
    """Return how a worker is, in a word, and the class that shows it."""
    if not worker.is_alive:
        return "silent", "failed"
    if worker.blocked_since is not None:
        return "blocked", "aborted"
    if worker.trusted is False:
        return "not trusted", "aborted"
    return ("working", "running") if worker.busy else ("idle", "succeeded")


def is_late(schedule: ScheduleInfo, now: datetime) -> bool:
    """Whether a tick has passed and nobody has settled it."""
    return schedule.next_tick is not None and schedule.next_tick < now - LATE_AFTER
