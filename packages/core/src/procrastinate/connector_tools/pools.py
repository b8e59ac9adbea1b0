"""Pools of our own: they wait for a free connection, and keep those that they made.

Generic over what ``connect`` returns, often a `sessions.Lease`. Both pools give out connections
that ``is_good`` approves of, without a round trip, and close all others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from procrastinate.connector_tools.failures import timed_out
from procrastinate.errors import AppNotOpen

C = TypeVar("C")


class WaitingPool(Generic[C]):
    """Up to ``maximum`` connections for any number of threads; ``minimum`` are made by `fill`.

    ``timeout`` is the time to wait for a free one in seconds, None for ever. ``size_option`` is the
    connector's name for ``maximum``, for messages. As a source of sessions it also has
    ``inherited``: whether it belongs to the process that ours was forked from.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        *,
        close: Callable[[C], object],
        is_good: Callable[[C], bool],
        minimum: int,
        maximum: int,
        timeout: float | None,
        size_option: str = "max_size",
    ) -> None:
        self.inherited = False
        self._connect = connect
        self._close = close
        self._is_good = is_good
        self._minimum = minimum
        self._maximum = maximum
        self._timeout = timeout
        self._size_option = size_option
        self._idle: list[C] = []  # append() and pop() are atomic
        self._made = 0  # connections idle, in use, or being made
        self._waiting = 0
        self._freed = threading.Condition(threading.Lock())
        self._closed = False

    def fill(self) -> None:
        """Make the first ``minimum`` connections. Raises what ``connect`` raises."""
        try:
            while self._made < self._minimum:
                self._idle.append(self._connect())
                self._made += 1
        except BaseException:
            self.close()
            raise

    def acquire(self, timeout: float | None = None) -> C:
        """Return an idle connection, else a new one, else wait for one.

        ``timeout`` is in seconds, None for the pool's own. Raises `PoolTimeout`, `AppNotOpen` if
        the pool is closed, and what ``connect`` raises.
        """
        while True:
            # A thread that waits goes first. Without waiters there is no lock to take: a semaphore
            # here cost 15 of the 270 microseconds of an insert and commit.
            try:
                connection = None if self._waiting else self._idle.pop()
            except IndexError:
                connection = None
            if connection is None:
                connection = self._wait(self._timeout if timeout is None else timeout)
            if connection is None:
                return self._new()
            if self._is_good(connection):
                return connection
            self._drop(connection)

    def _pop(self) -> C | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _wait(self, timeout: float | None) -> C | None:
        """Return an idle connection, or None for the right to make one, as soon as there is one."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._freed:
            self._waiting += 1  # before looking: release() adds first and then looks for waiters
            try:
                while True:
                    if self._closed:
                        raise _closed()
                    connection = self._pop()
                    if connection is not None:
                        return connection
                    if self._made < self._maximum:
                        self._made += 1
                        return None
                    remaining = None if deadline is None else deadline - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        raise timed_out(self._maximum, timeout, self._size_option)
                    self._freed.wait(remaining)
            finally:
                self._waiting -= 1

    def _new(self) -> C:
        try:
            return self._connect()
        except BaseException:
            self._give_up_one()
            raise

    def _drop(self, connection: C) -> None:
        try:
            self._close(connection)
        finally:
            self._give_up_one()

    def _give_up_one(self) -> None:
        with self._freed:
            self._made -= 1
            self._freed.notify()

    def release(self, connection: C, *, discard: bool = False) -> None:
        """Take a connection back, or close it."""
        if discard or self._closed:
            self._drop(connection)
            return
        self._idle.append(connection)
        if self._waiting:
            with self._freed:
                self._freed.notify()
        if self._closed:  # meanwhile
            self.discard_idle()

    def discard_idle(self) -> None:
        """Close the idle connections."""
        while (connection := self._pop()) is not None:
            self._drop(connection)

    def close(self) -> None:
        """Close idle connections now, and those in use as soon as they come back."""
        self._closed = True
        self.discard_idle()
        with self._freed:
            self._freed.notify_all()

    def renewed(self) -> WaitingPool[C]:
        """Return a pool like this one with no connections yet, for a process forked off."""
        return WaitingPool(
            self._connect,
            close=self._close,
            is_good=self._is_good,
            minimum=0,
            maximum=self._maximum,
            timeout=self._timeout,
            size_option=self._size_option,
        )


class ForeignProcessPool(Generic[C]):
    """Stands where the application's pool (``kind``) stood before the process was forked."""

    def __init__(self, kind: str) -> None:
        self.inherited = False
        self._kind = kind

    def acquire(self, timeout: float | None = None) -> C:
        """Raise `AppNotOpen`."""
        raise AppNotOpen(
            f"the {self._kind} given to open() belongs to the process that this one was forked"
            f" from: close() the app here and open() it with one made in this process"
        )

    def release(self, connection: C, *, discard: bool = False) -> None:
        """Leave the connection alone: it is the parent's."""

    def discard_idle(self) -> None:
        """Leave them alone."""

    def close(self) -> None:
        """Leave the pool alone: it is the parent's."""


class AsyncPool(Generic[C]):
    """Up to ``maximum`` connections (0: no limit) on one event loop; `fill` makes ``minimum``.

    ``timeout`` is the time to wait for a free one in seconds, None for ever. ``close`` closes a
    connection at once, also one in use: it is no coroutine.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[C]],
        *,
        close: Callable[[C], object],
        is_good: Callable[[C], bool],
        minimum: int,
        maximum: int,
        timeout: float | None,
        size_option: str = "max_size",
    ) -> None:
        self._connect = connect
        self._close = close
        self._is_good = is_good
        self._minimum = minimum
        self._maximum = maximum
        self._timeout = timeout
        self._size_option = size_option
        self._loop = asyncio.get_running_loop()
        self._idle: list[C] = []
        self._open: dict[int, C] = {}
        self._connecting = 0
        #: Each is given a connection, or None: "try again, something has changed".
        self._waiting: deque[asyncio.Future[C | None]] = deque()
        self._closed = False

    async def fill(self) -> None:
        """Make the first ``minimum`` connections. Raises what ``connect`` raises."""
        while len(self._open) < self._minimum:
            self.release(await self._new())

    async def acquire(self, timeout: float | None = None) -> C:
        """Return an idle connection, else a new one, else wait for one.

        ``timeout`` is in seconds, None for the pool's own. Raises `PoolTimeout`, `AppNotOpen` if
        the pool is closed, and what ``connect`` raises.
        """
        connection = self._good_idle()
        if connection is not None:
            return connection
        seconds = self._timeout if timeout is None else timeout
        deadline = None if seconds is None else self._loop.time() + seconds
        while connection is None:
            if self._maximum and len(self._open) + self._connecting >= self._maximum:
                connection = await self._given_back(deadline, seconds) or self._good_idle()
            else:
                connection = await self._new()
        return connection

    def _good_idle(self) -> C | None:
        if self._closed:
            raise _closed()
        while self._idle:
            connection = self._idle.pop()
            if self._is_good(connection):
                return connection
            self._drop(connection)
        return None

    async def _given_back(self, deadline: float | None, seconds: float | None) -> C | None:
        turn: asyncio.Future[C | None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                return await turn
        except TimeoutError as exc:
            self._pass_on(turn)
            raise timed_out(self._maximum, seconds, self._size_option) from exc
        except asyncio.CancelledError:
            self._pass_on(turn)
            raise

    def _pass_on(self, turn: asyncio.Future[C | None]) -> None:
        """Give what a waiter was given, and has no use for any more, to the next."""
        with suppress(ValueError):
            self._waiting.remove(turn)
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            connection = turn.result()
            if connection is None:
                self._wake(None)
            else:
                self.release(connection)

    async def _new(self) -> C:
        self._connecting += 1
        try:
            connection = await self._connect()
            self._open[id(connection)] = connection
        finally:
            self._connecting -= 1
            self._wake(None)
        if self._closed:
            self._drop(connection)
            raise _closed()
        return connection

    def release(self, connection: C, *, discard: bool = False) -> None:
        """Take a connection back, or close it."""
        if discard or self._closed:
            self._drop(connection)
        elif not self._wake(connection):
            self._idle.append(connection)

    def _drop(self, connection: C) -> None:
        self._close(connection)
        self._open.pop(id(connection), None)
        self._wake(None)

    def _wake(self, connection: C | None) -> bool:
        """Give the first waiter a connection, or None. Return whether there was a waiter."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    def discard_idle(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, []
        for connection in idle:
            self._drop(connection)

    def close(self) -> None:
        """Close all connections at once, also those in use."""
        self._closed = True
        for connection in list(self._open.values()):
            self._close(connection)
        self._idle.clear()
        self._open.clear()
        while self._wake(None):
            pass


def _closed() -> AppNotOpen:
    return AppNotOpen("the connector was closed while a connection was asked for: open it again")
