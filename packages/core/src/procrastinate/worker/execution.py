"""One attempt at one job: call the task and what wraps it; an exception becomes data here.

Rules

1. Code on the event loop is asked to end by cancellation, once for each reason; code in a thread by
   ``should_abort`` alone, for nothing can stop a thread.
2. So an attempt is cancelled only while its code is on the loop. Where ``async def`` middleware
   waits for a thread, the wait is not cancelled: the job would seem to have ended, and be tried
   again, while its thread runs on. A cancellation of the middleware's own (``asyncio.timeout``)
   comes through when the thread has ended.
3. An attempt without middleware and without a timeout pays for neither.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from procrastinate.errors import InvalidOption
from procrastinate.model.job import Job
from procrastinate.model.middleware import AnyMiddleware, Layers
from procrastinate.model.outcome import AbortReason
from procrastinate.model.task import TaskDefinition
from procrastinate.worker.context import JobContext, RunningWorker
from procrastinate.worker.threads import TaskThreads


@dataclass(slots=True, eq=False)
class Attempt:
    """A job that this worker runs: times are seconds of the monotonic clock."""

    job: Job
    definition: TaskDefinition
    context: JobContext
    layers: Layers
    worker: RunningWorker = field(repr=False)
    began: float = 0.0
    handed_back: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    on_loop: bool = False  # whether its code is there now, and not in a thread
    thread: asyncio.Future[Any] | None = field(default=None, repr=False)

    def ask_to_end(self, reason: AbortReason) -> None:
        """Ask the task to end: by cancellation on the loop, by ``should_abort`` in a thread."""
        self.context._ask_to_end(reason)
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
        self.handed_back = True
        if self.task is None:
            return
        if self.on_loop:
            asyncio._unregister_task(self.task)
        else:
            self.task.cancel()

    @property
    def abort_reason(self) -> AbortReason | None:
        return self.context.abort_reason()


async def perform(attempt: Attempt, threads: TaskThreads) -> BaseException | None:
    """Run the task, middleware included, to its end. Returns what it raised. Never raises."""
    attempt.began = time.monotonic()
    timer = _start_timer(attempt)
    try:
        if attempt.layers.on_loop:
            attempt.on_loop = True
            await _call_wrapped_on_loop(attempt, threads)
        elif attempt.definition.is_async:
            attempt.on_loop = True
            await _call(attempt)
        else:
            await _call_in_thread(attempt, threads)
    except BaseException as exc:
        return exc
    finally:
        if timer is not None:
            timer.cancel()
    return None


def _start_timer(attempt: Attempt) -> asyncio.TimerHandle | None:
    timeout = attempt.definition.timeout
    if timeout is None:
        return None
    return asyncio.get_running_loop().call_later(timeout, attempt.time_out)


def _call(attempt: Attempt) -> Any:
    if attempt.definition.pass_context:
        return attempt.definition.func(attempt.context, **attempt.job.task_kwargs)
    return attempt.definition.func(**attempt.job.task_kwargs)


async def _call_in_thread(attempt: Attempt, threads: TaskThreads) -> Any:
    attempt.thread = threads.call(_function_of_thread(attempt))
    if attempt.on_loop:
        await _thread_ended(attempt, attempt.thread)
    result, exception = await attempt.thread
    if exception is not None:
        raise exception
    if inspect.isawaitable(result):  # a wrapper that hides an async function
        attempt.on_loop = True
        result = await result
    return result


async def _thread_ended(attempt: Attempt, thread: asyncio.Future[Any]) -> None:
    """Wait for a thread on behalf of middleware: see rule 2."""
    cancellation: asyncio.CancelledError | None = None
    attempt.on_loop = False
    while not thread.done():
        try:
            await asyncio.wait([thread])
        except asyncio.CancelledError as exc:
            if attempt.handed_back:
                raise
            cancellation = exc
    attempt.on_loop = True
    if cancellation is not None:
        raise cancellation


# Middleware


async def _call_wrapped_on_loop(attempt: Attempt, threads: TaskThreads) -> None:
    innermost: Callable[[], Any] = functools.partial(_call, attempt)
    if not attempt.definition.is_async:
        innermost = functools.partial(_call_in_thread, attempt, threads)
    await _wrapped(innermost, attempt.layers.on_loop, attempt)()


def _function_of_thread(attempt: Attempt) -> Callable[[], Any]:
    if not attempt.layers.in_thread:
        return functools.partial(_call, attempt)
    innermost = functools.partial(_call_without_await, attempt)
    return _wrapped(innermost, attempt.layers.in_thread, attempt)


def _call_without_await(attempt: Attempt) -> Any:
    result = _call(attempt)
    if inspect.iscoroutine(result):
        result.close()
        raise InvalidOption(
            f"task {attempt.definition.name!r} is a plain function that returns a coroutine, which"
            " plain middleware cannot wrap: make it an `async def`"
        )
    return result


def _wrapped(
    innermost: Callable[[], Any], layers: Sequence[AnyMiddleware], attempt: Attempt
) -> Callable[[], Any]:
    call = innermost
    for middleware in reversed(layers):
        call = functools.partial(middleware, _once(call), attempt.context, attempt.worker)
    return call


def _once(call: Callable[[], Any]) -> Callable[[], Any]:
    called = False

    def call_next() -> Any:
        nonlocal called
        if called:
            raise RuntimeError("call_next() was called twice, and an attempt runs its task once")
        called = True
        return call()

    return call_next
