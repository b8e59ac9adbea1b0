"""Threads for plain functions.

Not `concurrent.futures.ThreadPoolExecutor`: its threads are joined when the interpreter ends, so
that one task which never returns would keep a stopped worker alive for ever. These are daemons:
a job whose thread does not end is handed back, and the process may leave.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

_Call = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class TaskThreads:
    """Up to ``limit`` threads, started as they are needed and reused."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._started = 0
        self._busy = 0

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a function in a thread, in a copy of the context; for the loop's thread only."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        self._calls.put((lambda: context.run(function), future, loop))
        self._busy += 1
        future.add_done_callback(self._freed)
        if self._busy > self._started < self._limit:
            self._start_thread()
        return future

    def close(self) -> None:
        """Let idle threads end; busy ones end after their call."""
        for _ in range(self._started):
            self._calls.put(None)

    def _freed(self, future: asyncio.Future[Any]) -> None:
        self._busy -= 1

    def _start_thread(self) -> None:
        self._started += 1
        threading.Thread(
            target=self.serve, name=f"{self._name}-task-{self._started}", daemon=True
        ).start()

    def serve(self) -> None:
        """Make calls, one after the other, until the threads are closed."""
        while (call := self._calls.get()) is not None:
            function, future, loop = call
            try:
                result = function()
            except BaseException as exc:  # SystemExit in a task ends the job, not the worker
                _report(loop, future, None, exc)
            else:
                _report(loop, future, result, None)
            del call, function, future


def _report(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    result: Any,
    exception: BaseException | None,
) -> None:
    try:
        loop.call_soon_threadsafe(_settle, future, result, exception)
    except RuntimeError:
        pass  # the loop has been closed: the job was handed back long ago


def _settle(future: asyncio.Future[Any], result: Any, exception: BaseException | None) -> None:
    if future.cancelled():
        return
    future.set_result((result, exception))
