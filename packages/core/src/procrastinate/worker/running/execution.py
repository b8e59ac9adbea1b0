"""One attempt at one job: the call of the task and of what wraps it.

Rules

1. Code on the event loop is asked to end by cancellation, once for each reason; code in a thread by
   ``should_abort`` alone, for nothing can stop a thread.
2. So an attempt is cancelled only while its code is on the loop. A wait for a thread goes on if it
   is cancelled: else the job would seem to have ended, and be tried again, while its thread runs
   on. A cancellation by middleware (``asyncio.timeout``) comes through when the thread has ended.
3. The value of the outermost middleware is kept, if the task keeps results. It is encoded where
   its task ran: in a thread for a plain function, since a large value takes milliseconds. The
   attempt has not ended before.
4. An attempt without middleware and without a timeout pays for neither: `call_task` gives the very
   coroutine of an ``async def`` task.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from procrastinate.errors import InvalidOption, ResultNotKept
from procrastinate.model import results
from procrastinate.model.job import Job, errors_read_by
from procrastinate.model.middleware import AnyMiddleware, Layers
from procrastinate.model.outcome import SUCCEEDED, UNSTARTED, AbortReason, Finished, Outcome
from procrastinate.model.task import TaskDefinition
from procrastinate.worker.context import AroundAttempt, JobContext, Surroundings
from procrastinate.worker.running.threads import TaskThreads


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


CLAIMED = ("id", "lease", "lock", "attempts")
Claimed: TypeAlias = tuple[int, int, str | None, int]


def _claimed(job: Job) -> Claimed:
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
    claimed: Claimed | None = field(default=None, repr=False)  # once others were shown the job
    context: JobContext | None = field(default=None, repr=False)

    @property
    def job_id(self) -> int:
        return self.job.id if self.claimed is None else self.claimed[0]

    @property
    def lease(self) -> int:
        return self.job.lease if self.claimed is None else self.claimed[1]

    def renew(self, job: Job) -> None:
        """Go on under a new claim of the same job."""
        self.job, self.claimed = job, None
        self.shown_job()

    def shown_job(self) -> Job:
        """Return the job for code of the user's: it can read its earlier errors from now on.

        Most tasks do not ask for their job, so nothing of this is done before somebody does.
        """
        if self.claimed is None:
            errors_read_by(self.job, self.surroundings.read_errors)
            self.claimed = _claimed(self.job)
        return self.job

    def observed_job(self) -> Job:
        """Return the job for observers: it can read its earlier errors from now on."""
        errors_read_by(self.job, self.surroundings.read_errors)
        return self.job

    def restore_job(self) -> None:
        """Undo what others have changed of what a write is about: which job, and which claim.

        A `Job` cannot be changed, but for what goes round that, and the task is given this one.
        """
        if self.claimed is not None and _claimed(self.job) != self.claimed:
            for name, value in zip(CLAIMED, self.claimed, strict=True):
                object.__setattr__(self.job, name, value)

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
        if not self.on_loop:
            self.task.cancel()

    @property
    def abort_reason(self) -> AbortReason | None:
        if self.context is not None:
            return self.context.abort_reason()
        return AbortReason.LEASE_DOUBTFUL if self.surroundings.is_doubtful() else None


@dataclass(frozen=True, slots=True)
class Way:
    """How attempts at a task are run: the same for all of them, so it is found out once."""

    layers: Layers
    in_thread: bool  # and nothing of it on the loop: so it needs no task there


def way_of(definition: TaskDefinition, middleware: Sequence[AnyMiddleware]) -> Way:
    """Return how attempts at a task are run, inside the worker's middleware."""
    layers = definition.layers(middleware)
    on_loop = definition.is_async or definition.timeout is not None or layers.on_loop
    return Way(layers, not on_loop)


def call_task(attempt: Attempt, threads: TaskThreads) -> Awaitable[object]:
    """Call the task, middleware included: what this returns is to be awaited, once, at once.

    Both may raise whatever the task and its middleware raise.
    """
    definition = attempt.definition
    if definition.is_async and attempt.surroundings.around is not None:
        return _call_observed(attempt, threads, attempt.surroundings.around)
    return _call_unobserved(attempt, threads)


async def _call_observed(attempt: Attempt, threads: TaskThreads, around: AroundAttempt) -> object:
    attempt.on_loop = True
    with around(attempt.observed_job()):
        return await _call_unobserved(attempt, threads)


def _call_unobserved(attempt: Attempt, threads: TaskThreads) -> Awaitable[object]:
    definition = attempt.definition
    if definition.timeout is not None:
        return _call_with_timeout(attempt, threads, definition.timeout)
    if definition.is_async and not attempt.layers.on_loop:  # most often, so it takes no more calls
        attempt.on_loop = True
        called: Awaitable[object] = _call(attempt)
        return called
    return _call_without_timeout(attempt, threads)


async def _call_with_timeout(attempt: Attempt, threads: TaskThreads, timeout: float) -> object:
    timer = asyncio.get_running_loop().call_later(timeout, attempt.time_out)
    try:
        return await _call_without_timeout(attempt, threads)
    finally:
        timer.cancel()


def _call_without_timeout(attempt: Attempt, threads: TaskThreads) -> Awaitable[object]:
    if attempt.layers.on_loop:
        attempt.on_loop = True
        return _call_wrapped_on_loop(attempt, threads)
    if attempt.definition.is_async:
        attempt.on_loop = True
        called: Awaitable[object] = _call(attempt)
        return called
    return _call_in_thread(attempt, threads)


def _call(attempt: Attempt) -> Any:
    if attempt.definition.pass_context:
        return attempt.definition.func(attempt.make_context(), **attempt.job.task_kwargs)
    return attempt.definition.func(**attempt.job.task_kwargs)


async def _call_in_thread(attempt: Attempt, threads: TaskThreads) -> Any:
    attempt.make_context()  # here, for the thread and the loop must not make one each
    result = await _in_thread(attempt, threads, function_of_thread(attempt))
    if result is not None and inspect.isawaitable(result):  # a wrapper hides an async function
        attempt.on_loop = True
        result = await result
    return result


async def _in_thread(attempt: Attempt, threads: TaskThreads, function: Callable[[], Any]) -> Any:
    attempt.thread = threads.call(functools.partial(attempt.go_on_in_thread, function))
    if attempt.on_loop:
        await _thread_ended(attempt, attempt.thread)
    try:
        result, exception = await attempt.thread
    except asyncio.CancelledError:  # by something that cancels all tasks of the loop, for instance
        result, exception = await _despite_cancellation(attempt, attempt.thread, threads)
    if exception is not None:
        if issubclass(type(exception), StopIteration):
            attempt.stopped = exception  # a coroutine cannot raise it: it becomes a RuntimeError
        raise exception
    return result


async def _thread_ended(attempt: Attempt, thread: asyncio.Future[Any]) -> None:
    """Wait for a thread on behalf of middleware: see rule 2."""
    cancellation: asyncio.CancelledError | None = None
    attempt.on_loop = False
    while not thread.done():
        try:
            await asyncio.wait([thread])
        except asyncio.CancelledError as exc:
            if attempt.over:
                raise
            cancellation = exc
    attempt.on_loop = True
    if cancellation is not None:
        raise cancellation


async def _despite_cancellation(
    attempt: Attempt, thread: asyncio.Future[Any], threads: TaskThreads
) -> Any:
    """Wait for a thread although the attempt was cancelled: see rule 2."""
    while not attempt.over:
        if thread.cancelled():
            thread = attempt.thread = threads.wait_again(thread)
        try:
            return await thread
        except asyncio.CancelledError:
            continue
    raise asyncio.CancelledError


# Middleware


async def _call_wrapped_on_loop(attempt: Attempt, threads: TaskThreads) -> object:
    innermost: Callable[[], Any] = functools.partial(_call, attempt)
    if not attempt.definition.is_async:
        innermost = functools.partial(_call_in_thread, attempt, threads)
    value: object = await _wrapped(innermost, attempt.layers.on_loop, attempt)()
    if attempt.definition.result and not attempt.definition.is_async:
        attempt.on_loop = False  # so a timeout that comes now does not undo what has returned
        await _in_thread(attempt, threads, functools.partial(attempt.keep, value))
    return value


def function_of_thread(attempt: Attempt) -> Callable[[], Any]:
    """Return what a thread is to call: the task, in plain middleware, in observers.

    It keeps the result if no middleware on the loop may still change it.
    """
    function = _wrapped_in_thread(attempt)
    if attempt.definition.result and not attempt.layers.on_loop:
        function = functools.partial(_call_and_keep, function, attempt)
    around = attempt.surroundings.around
    return function if around is None else functools.partial(_observed, attempt, around, function)


def _observed(attempt: Attempt, around: AroundAttempt, function: Callable[[], Any]) -> Any:
    with around(attempt.observed_job()):
        return function()


def _call_and_keep(function: Callable[[], Any], attempt: Attempt) -> Any:
    """Call a function and keep its value. Returns what has to be awaited first, else None."""
    value = function()
    if inspect.isawaitable(value):
        return value
    attempt.keep(value)
    return None


def _wrapped_in_thread(attempt: Attempt) -> Callable[[], Any]:
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
        call = functools.partial(
            middleware, _once(call), attempt.make_context(), attempt.surroundings.worker
        )
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
