"""What a worker says of one run of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from procrastinate.gateway import Gateway
from procrastinate.model.job import Job
from procrastinate.model.periodic import Periodic
from procrastinate.model.task import TaskRegistry
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.observing.observers import Observers
from procrastinate.storage.workers import About
from procrastinate.worker.context import RunningApp, RunningWorker
from procrastinate.worker.running.threads import TaskThreads
from procrastinate.worker.stopping import StopRequests


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The worker, as it is registered, and all that its parts need to know of it."""

    app: RunningApp
    worker: RunningWorker
    worker_id: int
    registered_at: float  # seconds of `procrastinate.worker.clock`
    about: About
    gateway: Gateway
    observers: Observers
    registry: TaskRegistry
    options: WorkerOptions
    periodics: Sequence[Periodic]
    stop: StopRequests
    wake: asyncio.Event  # set if the claiming, or the end, has to look at something
    on_ended: Callable[[Job, BaseException | None], None] | None
    threads: TaskThreads | None
    #: Hears of each LISTEN: in force (None), or why it failed.
    on_listening: Callable[[Exception | None], None]

    def log_fields(self, action: str) -> dict[str, object]:
        """Return the fields of a line of the log about this run."""
        return {"action": action, "worker_name": self.worker.name, "worker_id": self.worker_id}
