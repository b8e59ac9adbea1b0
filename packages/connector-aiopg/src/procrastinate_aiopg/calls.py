"""Database calls that a cancelled task cannot interrupt half-way.

Rules

1. aiopg answers the cancellation of a waiting task, and its own timeouts, by closing the socket
   while the server goes on executing: a cancelled INSERT is committed all the same. So neither
   ever reaches aiopg: a call ends first, then the cancellation is delivered.
2. A call that has not ended `PATIENCE` seconds after the cancellation loses its connection, by a
   shutdown of the socket. The server may still finish the statement. It is not asked to cancel it,
   because psycopg2's `cancel()` holds the interpreter's lock until the server answers: if that is
   silent, the whole process stands still, and hears no SIGTERM.
3. aiopg raises a bare `asyncio.CancelledError` where the *server* cancelled a statement. Since no
   task's cancellation reaches aiopg, one that comes out of it is always that, and becomes the
   psycopg2 error that it hides. Where aiopg waits on its future without a timer in between, the
   task throws the future's error in at our ``yield``, and aiopg does not see it at all. Where
   aiopg connects, a task's cancellation may reach it: there `server_s_cancellation` tells the two
   apart, by whether the task was asked to end.

A call runs in the task that made it. On `select 1` (26 µs with a bare aiopg cursor, best of five
runs) a task of its own behind `asyncio.shield` adds 21 µs, and is killed all the same by programs
that end with "cancel all tasks"; a future of its own adds 9 µs, as each wake-up takes one more
turn of the loop; standing in for aiopg's own future, as here, adds 3 µs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Generic, TypeVar

import aiopg
import psycopg2

from procrastinate_psycopg2.driver import sever

T = TypeVar("T")

#: Seconds that a cancelled task waits for its call before the connection is shut down.
PATIENCE = 5.0


@contextmanager
def server_s_cancellation() -> Iterator[None]:
    """Raise the psycopg2 error where aiopg says CancelledError and the server has cancelled."""
    try:
        yield
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if isinstance(exc.__context__, psycopg2.Error) and not (task and task.cancelling()):
            raise exc.__context__ from None
        raise


class Uninterrupted(Generic[T]):
    """Awaits one call of aiopg's to its end; a cancellation that came meanwhile is raised then."""

    __slots__ = ("_call", "_connection", "_loop", "_timer")

    def __init__(self, call: Coroutine[Any, Any, T], connection: aiopg.Connection) -> None:
        self._call = call
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __await__(self) -> Generator[Any, None, T]:
        cancellation: asyncio.CancelledError | None = None
        try:
            future = self._call.send(None)
            while True:
                try:
                    yield _Uncancellable(future, self._hurry)
                except asyncio.CancelledError as exc:
                    cancellation = cancellation or exc
                if future.done():
                    future = self._call.send(None)
        except StopIteration as end:
            result: T = end.value
        except asyncio.CancelledError as exc:
            error = _hidden_error(exc)
            raise cancellation or error from error
        except psycopg2.Error as exc:
            if cancellation is not None:
                raise cancellation from exc
            raise
        finally:
            self._call.close()
            if self._timer is not None:
                self._timer.cancel()
        if cancellation is not None:
            raise cancellation
        return result

    def _hurry(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, sever, self._connection.raw)


class _Uncancellable:
    """Stands for the future that a call waits on, and keeps a task's cancellation from it.

    A task asks the object that it waits on to cancel itself, and raises the cancellation at its
    next step where that declines. This is the protocol of `asyncio.isfuture`.
    """

    __slots__ = ("_asyncio_future_blocking", "_future", "_on_cancel")

    def __init__(self, future: asyncio.Future[Any], on_cancel: Callable[[], None]) -> None:
        self._asyncio_future_blocking = True
        self._future = future
        self._on_cancel = on_cancel

    def cancel(self, msg: Any = None) -> bool:
        self._on_cancel()
        return False

    def add_done_callback(
        self, callback: Callable[[asyncio.Future[Any]], object], *, context: Context | None = None
    ) -> None:
        self._future.add_done_callback(callback, context=context)

    def remove_done_callback(self, callback: Callable[[asyncio.Future[Any]], object]) -> int:
        return self._future.remove_done_callback(callback)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._future.get_loop()

    def done(self) -> bool:
        return self._future.done()

    def cancelled(self) -> bool:
        return self._future.cancelled()

    def result(self) -> Any:
        return self._future.result()

    def exception(self) -> BaseException | None:
        return self._future.exception()


def _hidden_error(exc: asyncio.CancelledError) -> psycopg2.Error:
    cause = exc.__context__
    if isinstance(cause, psycopg2.Error):
        return cause
    return psycopg2.OperationalError("the wait for the server was interrupted")
