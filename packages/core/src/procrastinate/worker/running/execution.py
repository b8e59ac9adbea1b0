"""Calling the task of an attempt, and what wraps it.

Rules

1. Nothing can stop a thread, so a wait for a thread goes on if it is cancelled. Else the job would
   seem to have ended, and would be tried again, while its thread runs on. A cancellation by
   middleware (``asyncio.timeout``) comes through when the thread has ended.
2. The value of the outermost middleware is kept, if the task keeps results. It is encoded where
   its task ran: in a thread for a plain function, because a large value takes milliseconds. The
   attempt has not ended before.
3. An attempt without middleware and without a timeout pays for neither: its way calls the
   ``async def`` function of the task, and gives its very coroutine.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, TypeAlias

from procrastinate.errors import InvalidOption
from procrastinate.model.endings.outcome import Requeued
from procrastinate.model.liveness import blame
from procrastinate.model.middleware import AnyMiddleware, Layers
from procrastinate.model.task import TaskDefinition
from procrastinate.worker import job_log
from procrastinate.worker.context import AroundAttempt
from procrastinate.worker.running.attempt import Attempt, NotBegun
from procrastinate.worker.running.threads import NoThread, TaskThreads, is_awaitable

CallOnLoop: TypeAlias = Callable[[Attempt, TaskThreads], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Way:
    """How attempts at a task are run: the same for all of them, so it is found out once."""

    layers: Layers
    in_thread: bool  # whether all of it runs in a thread, so that it needs no task on the loop
    #: Calls the task on the loop, middleware included. What this returns is to be awaited, once, at
    #: once. Both may raise whatever the task and its middleware raise.
    call: CallOnLoop


def way_of(
    definition: TaskDefinition,
    middleware: Sequence[AnyMiddleware],
    around: AroundAttempt | None = None,
) -> Way:
    """Return how attempts at a task are run, inside the worker's middleware and observers."""
    layers = definition.layers(middleware)
    on_loop = definition.is_async or definition.timeout is not None or layers.on_loop
    return Way(layers, not on_loop, _call_of(definition, layers, around))


def _call_of(
    definition: TaskDefinition, layers: Layers, around: AroundAttempt | None
) -> CallOnLoop:
    call: CallOnLoop = _call_without_timeout
    if definition.timeout is not None:
        call = _call_with_timeout
    elif definition.is_async and not layers.on_loop:
        call = _call_with_context if definition.pass_context else _call_plainly  # most often
    if definition.is_async and around is not None:
        return functools.partial(_call_observed, call, around)
    return call


async def _call_observed(
    call: CallOnLoop, around: AroundAttempt, attempt: Attempt, threads: TaskThreads
) -> object:
    attempt.on_loop = True
    with around(attempt.observed_job()):
        return await call(attempt, threads)


def _call_plainly(attempt: Attempt, _: TaskThreads) -> Any:
    attempt.on_loop = True
    return attempt.definition.func(**attempt.job.task_kwargs)


def _call_with_context(attempt: Attempt, _: TaskThreads) -> Any:
    attempt.on_loop = True
    return attempt.definition.func(attempt.make_context(), **attempt.job.task_kwargs)


async def _call_with_timeout(attempt: Attempt, threads: TaskThreads) -> object:
    assert attempt.definition.timeout is not None
    loop = asyncio.get_running_loop()
    timer = loop.call_later(attempt.definition.timeout, attempt.time_out)
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
    attempt.make_context()  # here: else the thread and the loop might make one each
    result = await _in_thread(attempt, threads, function_of_thread(attempt))
    if result is not None and is_awaitable(result):  # a wrapper hides an async function
        attempt.on_loop = True
        result = await result
    return result


async def _in_thread(attempt: Attempt, threads: TaskThreads, function: Callable[[], Any]) -> Any:
    try:
        attempt.thread = threads.call(functools.partial(attempt.go_on_in_thread, function))
    except NoThread as exc:
        raise without_thread(attempt, exc) from exc
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


def without_thread(attempt: Attempt, reason: NoThread) -> NotBegun:
    """Return what ends an attempt for which the system starts no thread: no fault of the job's."""
    job_log.no_thread(attempt.job, reason.__cause__ or reason)
    return NotBegun(Requeued(when=blame.delay(random.random()), begun=False))


async def _thread_ended(attempt: Attempt, thread: asyncio.Future[Any]) -> None:
    """Wait for a thread on behalf of middleware: see rule 1."""
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
    """Wait for a thread although the attempt was cancelled: see rule 1."""
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
    if is_awaitable(value):
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
    if type(result) is CoroutineType:
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
