"""aiopg's calls, which a cancelled task cannot interrupt half-way.

aiopg answers the cancellation of a waiting task, and its own timeouts, by closing the socket while
the server goes on executing: a cancelled INSERT is committed all the same. So neither ever reaches
it: see `procrastinate.connector_tools.calls`. The server is not asked to cancel, because psycopg2's
`cancel()` holds the interpreter's lock until the server answers: if that is silent, the whole
process stands still, and hears no SIGTERM.

aiopg raises a bare `asyncio.CancelledError` where the *server* cancelled a statement, and tells the
event loop's exception handler. Since no task's cancellation reaches aiopg, one that comes out of it
is always that, and becomes the psycopg2 error that it hides. If aiopg waits on its future without a
timer in between, it does not even see that error. Where aiopg connects, a task's cancellation may
reach it: there `server_s_cancellation` tells the two apart, by whether the task was asked to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import aiopg
import psycopg2

from procrastinate.connector_tools import calls
from procrastinate_psycopg2.driver import sever

T = TypeVar("T")


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


class Uninterrupted(calls.Uninterrupted[T]):
    """Awaits one call of aiopg's to its end; a cancellation that came meanwhile is raised then."""

    __slots__ = ()

    driver_sees_errors = False

    def __init__(self, call: Coroutine[Any, Any, T], connection: aiopg.Connection) -> None:
        super().__init__(_said_plainly(call), lambda: sever(connection.raw))


async def _said_plainly(call: Coroutine[Any, Any, T]) -> T:
    try:
        return await call
    except asyncio.CancelledError as exc:
        raise _hidden_error(exc) from None


def _hidden_error(exc: asyncio.CancelledError) -> psycopg2.Error:
    cause = exc.__context__
    if isinstance(cause, psycopg2.Error):
        return cause
    return psycopg2.OperationalError("the wait for the server was interrupted")
