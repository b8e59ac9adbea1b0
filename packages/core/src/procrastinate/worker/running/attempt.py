"""One attempt at one job: what is known of it, and how it is asked to end.

Code on the event loop is asked to end by cancellation, once for each reason. Code in a thread is
asked by ``should_abort`` alone, because nothing can stop a thread. So an attempt is cancelled only
while its code is on the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from procrastinate.errors import ResultNotKept
from procrastinate.model.endings import results
from procrastinate.model.endings.outcome import SUCCEEDED, UNSTARTED, AbortReason, Finished, Outcome
from procrastinate.model.job import Job, errors_read_by
from procrastinate.model.middleware import Layers
from procrastinate.model.task import TaskDefinition
from procrastinate.worker.context import JobContext, Surroundings


class NotBegun(Exception):
    """An attempt ended before its code began: the job goes back to the queue."""

    def __init__(self, outcome: Outcome = UNSTARTED) -> None:
        super().__init__()
        self.outcome = outcome


def _nothing() -> None: ...


def _always() -> bool:
    return True


NO_TASK = TaskDefinition(_nothing, "-")  # of an attempt whose task is not known
NO_LAYERS = Layers()

#: What the write of an ending says of the job: which one it is, and which claim of it.
FENCE = ("id", "lease", "lock", "attempts")
Fence: TypeAlias = tuple[int, int, str | None, int]


def _fence_of(job: Job) -> Fence:
    return job.id, job.lease, job.lock, job.attempts


@dataclass(slots=True, eq=False)
class Attempt:
    """A job that this worker runs: times are seconds of the monotonic clock."""

    job: Job
    surroundings: Surroundings = field(repr=False)
    definition: TaskDefinition = NO_TASK
    layers: Layers = NO_LAYERS
    began: float = 0.0
    ended: float = 0.0  # when its code returned; 0 if the loop has to look at the clock
    returned: bool = False
    over: bool = False  # its ending is decided; what its code still does is not written
    task: asyncio.Future[None] | None = field(default=None, repr=False)
    on_loop: bool = False  # whether its code is there now, and not in a thread
    thread: asyncio.Future[Any] | None = field(default=None, repr=False)
    stopped: BaseException | None = field(default=None, repr=False)
    success: Finished = SUCCEEDED  # what becomes of the job if this attempt returned
    fence: Fence | None = field(default=None, repr=False)  # once others were shown the job
    context: JobContext | None = field(default=None, repr=False)

    @property
    def job_id(self) -> int:
        return self.job.id if self.fence is None else self.fence[0]

    @property
    def lease(self) -> int:
        return self.job.lease if self.fence is None else self.fence[1]

    def renew(self, job: Job) -> None:
        """Go on under a new claim of the same job."""
        self.job, self.fence = job, None
        self.shown_job()

    def shown_job(self) -> Job:
        """Return the job for code of the user's: it can read its earlier errors from now on.

        Most tasks do not ask for their job, so nothing of this is done before one does.
        """
        if self.fence is None:
            errors_read_by(self.job, self.surroundings.read_errors)
            self.fence = _fence_of(self.job)
        return self.job

    def observed_job(self) -> Job:
        """Return the job for observers: it can read its earlier errors from now on."""
        errors_read_by(self.job, self.surroundings.read_errors)
        return self.job

    def restore_job(self) -> None:
        """Undo what others have changed of what a write is about: which job, and which claim.

        The task is given this very object.
        """
        if self.fence is not None and _fence_of(self.job) != self.fence:
            for name, value in zip(FENCE, self.fence, strict=True):
                setattr(self.job, name, value)

    def make_context(self) -> JobContext:
        """Return what the task and its middleware are given: made at the first call, on the loop.

        Many attempts need none, and to make it takes twice as long as to make the attempt.
        """
        if self.context is None:
            self.context = self.surroundings.context_of(self.shown_job(), self.definition)
        return self.context

    def begin_in_thread(
        self, function: Callable[[], Any], may_start: Callable[[], bool] = _always
    ) -> Any:
        """Call this function, in a thread that has taken the attempt. Raises `NotBegun`.

        The attempt may have waited for the thread, and what the loop knows may have changed.
        """
        context = self.make_context()  # which was made on the loop
        self.began = time.monotonic()
        # In this order: the loop reads `began` after it has set `over`, so one of both sees it.
        if self.over or not may_start() or self.abort_reason is not None:
            self.began = 0.0
            raise NotBegun
        context.start_timestamp = time.time()
        result = function()
        self.ended = time.monotonic()  # the loop may hear of it later
        return result

    def go_on_in_thread(self, function: Callable[[], Any]) -> Any:
        """Call this function, unless the attempt was given up before a thread took it."""
        if self.over:
            raise NotBegun
        return function()

    def keep(self, value: object) -> None:
        """Note what the task returned, for a task that keeps results.

        Raises `ResultNotKept` if the task insists on a result that cannot be kept.
        """
        success = results.success_with(value, self.surroundings.dumps)
        why_not = success.result_error
        if why_not is not None and self.definition.result == "strict":
            raise ResultNotKept(why_not)
        self.success = success

    def ask_to_end(self, reason: AbortReason) -> None:
        """Ask the task to end: by cancellation on the loop, by ``should_abort`` in a thread."""
        self.make_context()._ask_to_end(reason)
        if self.on_loop and self.task is not None:
            self.task.cancel()

    def time_out(self) -> None:
        """Ask the task to end because its time is over, unless it just ended in time."""
        if self.on_loop or self.thread is None or not self.thread.done():
            self.ask_to_end(AbortReason.TIMEOUT)

    def abandon(self) -> None:
        """Let go of an attempt that does not end; what it still does is not written.

        ``asyncio.run`` waits at its end for all tasks that it knows. One that swallows every
        cancellation, or waits for a thread, would keep a worker alive that has stopped.
        """
        self.over = True
        if self.task is None:
            return
        asyncio._unregister_task(self.task)  # type: ignore[arg-type]
        if isinstance(self.task, asyncio.Task):
            task: Any = self.task
            task._log_destroy_pending = False  # else asyncio logs an error when the task is gone
        if not self.on_loop:
            self.task.cancel()

    @property
    def abort_reason(self) -> AbortReason | None:
        if self.context is not None:
            return self.context.abort_reason()
        return AbortReason.LEASE_DOUBTFUL if self.surroundings.is_doubtful() else None
