"""Threads for plain functions.

Not `concurrent.futures.ThreadPoolExecutor`: its threads are joined when the interpreter ends, so
that one task which never returns would keep a stopped worker alive for ever. These are daemons:
a job whose thread does not end is handed back, and the process may leave.

The loop is woken once for all calls that have ended by the time it comes round: waking it for each
takes longer than a short call does.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

_Call = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]
_Ended = tuple["asyncio.Future[Any]", Any, BaseException | None]


class TaskThreads:
    """Up to ``limit`` threads, started as they are needed and reused."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._ended: deque[_Ended] = deque()
        self._loop_is_woken = False
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
                self._report(loop, (future, None, exc))
            else:
                self._report(loop, (future, result, None))
            del call, function, future

    def _report(self, loop: asyncio.AbstractEventLoop, ended: _Ended) -> None:
        self._ended.append(ended)
        if self._loop_is_woken:
            return
        self._loop_is_woken = True
        try:
            loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            pass  # the loop has been closed: the job was handed back long ago

    def _settle(self) -> None:
        # First, so that a thread which comes too late for this turn wakes the loop again.
        self._loop_is_woken = False
        while self._ended:
            future, result, exception = self._ended.popleft()
            if not future.cancelled():
                future.set_result((result, exception))
