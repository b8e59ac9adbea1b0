"""Driving behaviours of either kind: at the same time, in time, and on signals.

Rules

1. A coroutine about a synchronous connector never suspends. It runs in a thread of its own.
2. Nothing hangs: a behaviour that takes longer than `DEADLINE` fails.
"""

from __future__ import annotations

import abc
import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

from procrastinate_connector_testkit.adapter import Block

DEADLINE = 30.0  # seconds for one behaviour
PATIENCE = 10.0  # seconds until what should be so has to be so

T = TypeVar("T")


class Signal(abc.ABC):
    """An event that branches of `together` wait for."""

    @abc.abstractmethod
    def set(self) -> None: ...

    @abc.abstractmethod
    async def wait(self) -> None: ...


class ThreadSignal(Signal):
    def __init__(self) -> None:
        self.event = threading.Event()

    def set(self) -> None:
        self.event.set()

    async def wait(self) -> None:
        assert self.event.wait(PATIENCE), f"the signal did not come within {PATIENCE:g} seconds"


class TaskSignal(Signal):
    def __init__(self) -> None:
        self.event = asyncio.Event()

    def set(self) -> None:
        self.event.set()

    async def wait(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.event.wait()


@asynccontextmanager
async def entered(block: Block[T]) -> AsyncIterator[T]:
    """Enter a block of either kind."""
    if isinstance(block, AbstractAsyncContextManager):
        async with block as value:
            yield value
    else:
        with block as value:
            yield value


async def called(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of either kind and return its result."""
    result = function(*args)
    return await result if inspect.isawaitable(result) else result


class InThread(Generic[T]):
    """A coroutine that never suspends, under way in a thread of its own."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.work = work
        self.outcome: Future[T] = Future()
        self.deadline = time.monotonic() + DEADLINE
        threading.Thread(target=self._run, name="testkit", daemon=True).start()

    def _run(self) -> None:
        __tracebackhide__ = True
        try:
            self.outcome.set_result(run_unsuspended(self.work))
        except BaseException as exc:
            self.outcome.set_exception(exc)

    def result_in_time(self) -> T:
        __tracebackhide__ = True
        try:
            return self.outcome.result(max(0.1, self.deadline - time.monotonic()))
        except TimeoutError:
            if self.outcome.done():
                raise
        raise AssertionError(f"it did not end within {DEADLINE:g} seconds")


def in_thread(work: Coroutine[Any, Any, T]) -> InThread[T]:
    return InThread(work)


def run_unsuspended(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits for a loop."""
    __tracebackhide__ = True
    try:
        work.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    work.close()
    raise RuntimeError("a behaviour waited for an event loop that a synchronous connector lacks")
