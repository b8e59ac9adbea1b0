"""An event loop in a thread, and calls of coroutines on it from other threads.

Rules

1. A caller gets an answer, also if the loop ends meanwhile.
2. An interruption (KeyboardInterrupt) cancels the call on the loop, and is raised when it has
   ended: so what the call has changed is known to who made it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

from procrastinate.errors import ConfigurationError, ConnectionLost

T = TypeVar("T")

ENDING_MAY_TAKE = 5.0  # seconds until a loop that does not end is left to itself
#: Seconds that an interrupted caller waits for its call. A connector shuts the socket of a call
#: that was cancelled before that.
INTERRUPTED_MAY_TAKE = 10.0


class LoopThread:
    """An event loop in a thread, which runs coroutines for other threads."""

    def __init__(self, name: str) -> None:
        #: Whether it belongs to the process that ours was forked from.
        self.inherited = False
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._ended = False
        self._calls: set[Call[Any]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            with self._lock:
                self._ended = True
            self._loop.run_until_complete(self._cancel_all())
        finally:
            with contextlib.suppress(Exception):
                self._loop.close()
            for call in list(self._calls):  # their turn never came
                call.give_up()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=ENDING_MAY_TAKE)

    def prepare(self, coroutine: Coroutine[Any, Any, T]) -> Call[T]:
        """Return a call that begins on the loop when its result is asked for.

        Raises `ConfigurationError` on the loop itself, which cannot wait for itself.
        """
        if threading.get_ident() == self._thread.ident:
            coroutine.close()
            raise ConfigurationError(
                "a plain call was made on the event loop that serves plain calls, for instance in"
                " a callback of the driver: make it in another thread"
            )
        return Call(self, coroutine)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, and return or raise what it does.

        Raises `ConnectionLost` if the loop has ended.
        """
        return self.prepare(coroutine).result()

    def begin(self, call: Call[Any]) -> None:
        """Begin a call on the loop. Raises `ConnectionLost` if the loop has ended."""
        with self._lock:
            if self._ended or self.inherited:
                raise _closed()
            self._calls.add(call)
            self._loop.call_soon_threadsafe(call.begin, self._loop)

    def is_under_way(self, call: Call[Any]) -> bool:
        """Return whether a call has begun, and not ended."""
        return call in self._calls

    def ended(self, call: Call[Any]) -> None:
        """Note that the caller of a call waits no more; on the loop."""
        self._calls.discard(call)

    def soon(self, callback: Callable[[], object]) -> None:
        """Call a function on the loop. Does nothing if that has ended."""
        with self._lock:
            if not (self._ended or self.inherited):
                self._loop.call_soon_threadsafe(callback)

    def let_end(self, last: Coroutine[Any, Any, object]) -> None:
        """Let the loop end once it has run a coroutine; do not wait for that."""
        with self._lock:
            if self._ended or self.inherited:
                last.close()
            else:
                self._loop.call_soon_threadsafe(self._end_after, last)

    def _end_after(self, last: Coroutine[Any, Any, object]) -> None:
        task = self._loop.create_task(last)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        task.add_done_callback(lambda _: self._loop.stop())

    def end(self, last: Coroutine[Any, Any, object]) -> None:
        """End the loop once it has run a coroutine, and wait for the thread, for a limited time."""
        self.let_end(last)
        self._thread.join(ENDING_MAY_TAKE)


class Call(Generic[T]):
    """A coroutine on another thread's loop, and its outcome."""

    def __init__(self, loop: LoopThread, coroutine: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        self._outcome: Future[T] = Future()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin it; on the loop."""
        self._task = loop.create_task(self._coroutine)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._outcome.set_exception(_closed())
        elif (exc := task.exception()) is not None:
            self._outcome.set_exception(exc)
        else:
            self._outcome.set_result(task.result())
        self._loop.ended(self)

    def give_up(self) -> None:
        """Tell who waits that the loop has ended without it."""
        if not self._outcome.done():
            self._coroutine.close()
            self._outcome.set_exception(_closed())
        self._loop.ended(self)

    @property
    def has_succeeded(self) -> bool:
        """Whether it has ended well."""
        return self._outcome.done() and self._outcome.exception() is None

    def result(self) -> T:
        """Begin it, wait for its end, and return or raise what the coroutine did."""
        try:
            self._loop.begin(self)
            return self._outcome.result()
        except BaseException:
            if self._loop.is_under_way(self):  # the wait was interrupted (rule 2)
                self._loop.soon(self._cancel)
                wait([self._outcome], INTERRUPTED_MAY_TAKE)
            elif not self._outcome.done():
                self._coroutine.close()
            raise

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _closed() -> ConnectionLost:
    return ConnectionLost("the connector was closed while a call was under way")
