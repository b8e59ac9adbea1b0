"""Workers and schedules as their rows describe them, for people who do not have the app's code."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from procrastinate.errors import InvalidOption
from procrastinate.model.periodic import next_tick, stored_schedule

SILENT_AFTER = 30.0  # seconds without a sign of life
#: A schedule this late has no worker that defers its jobs.
LATE_AFTER = timedelta(minutes=2)

WorkerState: TypeAlias = Literal["alive", "blocked", "untrusted", "silent"]


@dataclass(frozen=True)
class WorkerInfo:
    """A worker, as its row describes it. All times are aware, in UTC, by the server's clock.

    What is None the worker did not say; ``queues`` is None as well if it serves all of them.
    ``busy`` is how many of its ``concurrency`` slots had a job at its last sign of life,
    ``last_heartbeat``. That was ``seconds_since_heartbeat`` ago; others take it for dead after its
    ``stalled_worker_timeout`` (30 seconds, unless it was told otherwise). ``blocked_since`` is the
    time from which on its event loop has not turned. ``trusted`` is False if no sign of life had
    been confirmed for so long that it claimed nothing.
    """

    id: int
    name: str
    host: str | None
    pid: int | None
    version: str | None
    queues: tuple[str, ...] | None
    task_names: tuple[str, ...] | None = field(repr=False)
    concurrency: int | None
    busy: int | None
    trusted: bool | None
    blocked_since: datetime | None
    started_at: datetime
    last_heartbeat: datetime
    seconds_since_heartbeat: float

    @property
    def is_alive(self) -> bool:
        """Whether it gave a sign of life in the last 30 seconds. Else it is silent.

        By default, others take its jobs over then.
        """
        return self.seconds_since_heartbeat < SILENT_AFTER

    @property
    def state(self) -> WorkerState:
        """How it is, in a word; of several that apply, the worst."""
        if not self.is_alive:
            return "silent"
        if self.blocked_since is not None:
            return "blocked"
        return "untrusted" if self.trusted is False else "alive"


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule of a periodic task, as its row describes it. All times are aware, in UTC.

    ``cron``, ``timezone`` and ``queue`` are None until a worker of this release has seen the
    schedule. Ticks up to ``done_until`` are settled; ``last_tick`` is the latest one with a job,
    which is ``job_id``. Workers confirm once a day that they have the schedule: ``seen_at``.
    """

    task_name: str
    periodic_id: str
    cron: str | None
    timezone: str | None
    queue: str | None
    done_until: datetime
    last_tick: datetime | None
    job_id: int | None
    seen_at: datetime

    @property
    def next_tick(self) -> datetime | None:
        """The first tick that is not settled; None if that cannot be said."""
        if self.cron is None or self.timezone is None:
            return None
        try:
            schedule = stored_schedule(self.cron, self.timezone)
        except InvalidOption:  # of a release with other rules, or changed by hand
            return None
        return next_tick(schedule, self.done_until)

    def is_late(self, now: datetime) -> bool:
        """Whether its next tick was 2 minutes ago or more (``now`` is aware): no worker defers it.

        So it is with a schedule that has been removed from the code.
        """
        tick = self.next_tick
        return tick is not None and tick < now - LATE_AFTER
