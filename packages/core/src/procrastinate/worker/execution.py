"""One attempt at one job: call the task; an exception becomes data here."""

from __future__ import annotations

import asyncio
import inspect
import time
from dataclasses import dataclass, field
from typing import Any

from procrastinate.errors import JobAborted
from procrastinate.model.job import Job
from procrastinate.model.task import TaskDefinition
from procrastinate.worker.context import AbortReason, JobContext
from procrastinate.worker.threads import TaskThreads


@dataclass(slots=True, eq=False)
class Attempt:
    """A job that this worker runs: times are seconds of the monotonic clock."""

    job: Job
    definition: TaskDefinition
    context: JobContext
    began: float = 0.0
    entered: bool = False
    handed_back: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def abort(self, reason: AbortReason) -> None:
        """Ask the task to end: by cancellation on the loop, by ``should_abort`` in a thread.

        A user's request, once made, is not replaced by the worker's shutdown.
        """
        if self.context._abort_reason is None:
            self.context._abort_reason = reason
        if self.entered and self.definition.is_async and self.task is not None:
            self.task.cancel()

    @property
    def abort_reason(self) -> AbortReason | None:
        return self.context.abort_reason()


async def perform(attempt: Attempt, threads: TaskThreads) -> BaseException | None:
    """Run the task to its end. Returns what it raised, or None. Never raises."""
    attempt.began = time.monotonic()
    attempt.entered = True
    if attempt.context.should_abort():
        return JobAborted("abortion was asked for before the task began")
    try:
        if attempt.definition.is_async:
            await _call(attempt)
        else:
            await _call_in_thread(attempt, threads)
    except BaseException as exc:
        return exc
    return None


def _call(attempt: Attempt) -> Any:
    if attempt.definition.pass_context:
        return attempt.definition.func(attempt.context, **attempt.job.task_kwargs)
    return attempt.definition.func(**attempt.job.task_kwargs)


async def _call_in_thread(attempt: Attempt, threads: TaskThreads) -> None:
    result, exception = await threads.call(lambda: _call(attempt))
    if exception is not None:
        raise exception
    if inspect.isawaitable(result):  # a wrapper that hides an async function
        await result
