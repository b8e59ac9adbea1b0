"""Threads for plain functions.

Rules

1. Not `concurrent.futures.ThreadPoolExecutor`: its threads are joined when the interpreter ends, so
   one task that never returns would keep a stopped worker alive for ever. These are daemons: a job
   whose thread does not end is handed back, and the process may leave.
2. The loop is woken once for all calls that have ended by the time it comes round: waking it for
   each takes longer than a short call does.
3. A call is reported whatever happens in its thread. An exception may be sent to a thread from
   outside (`PyThreadState_SetAsyncExc`) and come too late for the call that it was meant for. So a
   thread takes a call from the queue by a step that does not wait: if it took the call while it
   waits, such an exception would be raised in place of the call, which would be lost.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from procrastinate.worker import forks

OnEnded = Callable[[Any, BaseException | None], None]


@dataclass(slots=True, eq=False)
class _Call:
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any] | None = None
    on_ended: OnEnded | None = None  # instead of a future
    settled: bool = False


class TaskThreads:
    """Up to ``limit`` threads, started as they are needed and reused."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: deque[_Call | None] = deque()  # None: one thread is to end
        self._turn: queue.SimpleQueue[None] = queue.SimpleQueue()  # an item for each call
        self._ended: deque[tuple[_Call, Any, BaseException | None]] = deque()
        self._again: dict[asyncio.Future[Any], asyncio.Future[Any]] = {}
        self._loop_is_woken = False
        self._started = 0
        self._busy = 0
        self._generation = forks.generation()

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a function in a thread, in a copy of the context; for the loop's thread only.

        The future's result is a pair of what the function returned and what it raised.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        future = loop.create_future()
        self._take_turn(_Call(lambda: context.run(function), loop, future))
        return future

    def run(
        self, function: Callable[[], Any], context: contextvars.Context, on_ended: OnEnded
    ) -> None:
        """Run a function in a thread and in this context; for the loop's thread only.

        ``on_ended`` is told on the loop what it returned and what it raised. It must not raise; it
        may be told twice. This costs the loop a third of what a future and a task cost it.
        """
        loop = asyncio.get_running_loop()
        self._take_turn(_Call(lambda: context.run(function), loop, on_ended=on_ended))

    def _take_turn(self, call: _Call) -> None:
        if self._busy >= self._started < self._limit:
            self._start_thread()
        self._busy += 1
        self._put(call)

    def wait_again(self, cancelled: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """Return another future of a call whose future was cancelled while its thread runs on."""
        again = self._again[cancelled] = asyncio.get_running_loop().create_future()
        return again

    def close(self) -> None:
        """Let idle threads end; busy ones end after their call."""
        for _ in range(self._started):
            self._put(None)

    def _put(self, call: _Call | None) -> None:
        self._calls.append(call)
        self._turn.put(None)

    def _start_thread(self) -> None:
        """Start one more thread. If the system has none left, the others do the work, if any."""
        number = self._started + 1
        thread = threading.Thread(
            target=self._serve_always, name=f"{self._name}-task-{number}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            if not self._started:
                raise
        else:
            self._started = number

    def _serve_always(self) -> None:
        while True:
            try:
                return self.serve()
            except BaseException:
                continue  # rule 3

    def serve(self) -> None:
        """Make calls, one after the other, until the threads are closed."""
        while True:
            while self._calls:
                try:
                    call = self._calls.popleft()
                except IndexError:
                    break  # another thread took it
                if call is None:
                    return
                self._make(call)
                del call
            self._turn.get()

    def _make(self, call: _Call) -> None:
        try:
            try:
                result, exception = call.function(), None
            except BaseException as exc:  # SystemExit in a task ends the job, not the worker
                result, exception = None, exc
            if forks.generation() != self._generation:
                forks.leave(exception)
            self._report(call, result, exception)
            del exception  # else it would be kept alive by its own traceback
        except BaseException as exc:  # came too late for the function, see rule 3
            self._report(call, None, exc)

    def _report(self, call: _Call, result: Any, exception: BaseException | None) -> None:
        self._ended.append((call, result, exception))
        if self._loop_is_woken:
            return
        self._loop_is_woken = True
        try:
            call.loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            pass  # the loop has been closed: the job was handed back long ago
        except BaseException:
            self._loop_is_woken = False  # else nothing would wake the loop any more
            raise

    def _settle(self) -> None:
        try:
            # First, so that a thread which comes too late for this turn wakes the loop again.
            self._loop_is_woken = False
            for _ in range(len(self._ended)):  # not those that end meanwhile: others wait, too
                self._settle_one(*self._ended[0])
                self._ended.popleft()
        except BaseException:
            asyncio.get_running_loop().call_soon(self._settle)  # what is left, again

    def _settle_one(self, call: _Call, result: Any, exception: BaseException | None) -> None:
        """Settle a call. Doing so twice changes nothing."""
        if not call.settled:
            call.settled = True
            self._busy -= 1
        if call.on_ended is not None:
            call.on_ended(result, exception)
        if call.future is not None:
            self._settle_future(call.future, result, exception)

    def _settle_future(
        self, future: asyncio.Future[Any], result: Any, exception: BaseException | None
    ) -> None:
        while future.cancelled() and future in self._again:
            future = self._again.pop(future)
        if not future.done():
            future.set_result((result, exception))
