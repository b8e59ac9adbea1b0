"""Where sessions take their connections: our own pool, or one that the application handed in.

Rules

1. aiopg's pool connects while it holds the lock that everybody needs, hangs in ``wait_closed()``
   while a connection is out, makes a task for each connection given back, and cannot connect to
   several hosts (see `connecting`). So our own pool is ours; it holds aiopg connections.
2. Both give out connections that are alive before anything is sent on them, and take back clean
   ones; anything else is closed, which both aiopg's pool and ours take for "make a new one".
3. The application's pool is used by its public methods only and is never closed. Its idle
   connections cannot be closed from here. So once one of its connections was severed because it was
   silent, each of the others has to answer a short question before it is used.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import aiopg
import psycopg2

from procrastinate.errors import (
    AppNotOpen,
    ConfigurationError,
    ConnectionFailed,
    ConnectorException,
    InvalidOption,
    PoolTimeout,
)
from procrastinate_aiopg.calls import server_s_cancellation
from procrastinate_aiopg.held import Held, close_quietly, is_alive
from procrastinate_aiopg.plans import Permission, Plans
from procrastinate_psycopg2.driver import check_encoding, connect_error, sever

THEIRS = "the aiopg pool given to open_async()"  # in messages
PROOF_MAY_TAKE = 2.0  # seconds for a connection of the application's pool to show that it lives


class Source(Protocol):
    """Where sessions take their connections."""

    async def acquire(self, timeout: float | None = None) -> Held:
        """Return a live connection for one user. Raises `PoolTimeout`, `ConnectionFailed`.

        Waits ``timeout`` seconds for it, or for as long as the connector waits otherwise.
        """

    def release(self, held: Held) -> None:
        """Take a connection back; one that is not clean is closed."""

    async def acquire_for_listening(self) -> aiopg.Connection:
        """Return a connection for a listener, outside of the limit where that can be."""

    def release_from_listening(self, connection: aiopg.Connection) -> None:
        """Close a listener's connection."""

    def discard_idle(self) -> None:
        """Close idle connections, as they lead to a server that cannot be written to."""

    def close(self) -> None:
        """Close what is ours, at once, also connections in use."""


class OwnPool:
    """Up to ``maxsize`` connections (0: any number), of which ``minsize`` are made by `fill`.

    ``recycle``: an idle connection older than this many seconds is replaced, -1 for never.
    ``timeout``: seconds to wait for a free connection, None for ever.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[aiopg.Connection]],
        *,
        minsize: int,
        maxsize: int,
        recycle: float,
        timeout: float | None,
    ) -> None:
        self._connect = connect
        self._minsize = minsize
        self._maxsize = maxsize
        self._recycle = recycle
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._idle: list[Held] = []
        self._open: set[Held] = set()
        self._listeners: set[aiopg.Connection] = set()
        self._connecting = 0
        #: Each is given a connection, or None: "try again, something has changed".
        self._waiting: deque[asyncio.Future[Held | None]] = deque()
        self._closed = False
        self._may_prepare = Permission()

    async def fill(self) -> None:
        """Make the first ``minsize`` connections. Raises `ConnectionFailed`."""
        while len(self._open) < self._minsize:
            self.release(await self._new())

    async def acquire(self, timeout: float | None = None) -> Held:
        held = self._live_idle()
        if held is not None:
            return held
        if timeout is None:
            timeout = self._timeout
        deadline = None if timeout is None else self._loop.time() + timeout
        while held is None:
            if self._maxsize and len(self._open) + self._connecting >= self._maxsize:
                held = await self._given_back(deadline, timeout) or self._live_idle()
            else:
                held = await self._new()
        return held

    def _live_idle(self) -> Held | None:
        if self._closed:
            raise AppNotOpen("the connector was closed: call open_async() first")
        while self._idle:
            held = self._idle.pop()
            if self._is_good(held):
                return held
            self._drop(held)
        return None

    def _is_good(self, held: Held) -> bool:
        if -1 < self._recycle < self._loop.time() - held.idle_since:
            return False
        # A notice that came in idleness is the server's farewell; `release` left none.
        return is_alive(held.connection) and not held.raw.notices

    async def _given_back(self, deadline: float | None, timeout: float | None) -> Held | None:
        turn: asyncio.Future[Held | None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                return await turn
        except TimeoutError as exc:
            self._pass_on(turn)
            raise _timed_out(timeout) from exc
        except asyncio.CancelledError:
            self._pass_on(turn)
            raise

    def _pass_on(self, turn: asyncio.Future[Held | None]) -> None:
        """Give what a waiter was given, and has no use for any more, to the next."""
        with suppress(ValueError):
            self._waiting.remove(turn)
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            held = turn.result()
            if held is None:
                self._wake(None)
            else:
                self.release(held)

    async def _new(self) -> Held:
        self._connecting += 1
        try:
            held = await Held.hold(await self._connect())
            held.plans = Plans(self._may_prepare)
            self._open.add(held)
        finally:
            self._connecting -= 1
            self._wake(None)
        if self._closed:
            self._drop(held)
            raise AppNotOpen("the connector was closed while a connection was made")
        return held

    def release(self, held: Held) -> None:
        if self._closed or not held.reusable:
            self._drop(held)
            return
        held.idle_since = self._loop.time()
        if held.raw.notices:
            del held.raw.notices[:]
        if not self._wake(held):
            self._idle.append(held)

    def _drop(self, held: Held) -> None:
        close_quietly(held.connection)
        self._open.discard(held)
        self._wake(None)

    def _wake(self, held: Held | None) -> bool:
        """Give the first waiter a connection, or None. Say whether there was a waiter."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(held)
                return True
        return False

    async def acquire_for_listening(self) -> aiopg.Connection:
        connection = await self._connect()
        self._listeners.add(connection)
        return connection

    def release_from_listening(self, connection: aiopg.Connection) -> None:
        self._listeners.discard(connection)
        close_quietly(connection)

    def discard_idle(self) -> None:
        idle, self._idle = self._idle, []
        for held in idle:
            self._drop(held)

    def close(self) -> None:
        self._closed = True
        for connection in [held.connection for held in self._open] + list(self._listeners):
            close_quietly(connection)
        self._idle.clear()
        self._open.clear()
        self._listeners.clear()
        while self._wake(None):
            pass


class GivenPool:
    """The application's own aiopg pool, which others use too."""

    def __init__(self, pool: aiopg.Pool, *, timeout: float | None) -> None:
        self.pool = pool
        self._timeout = timeout
        #: Those that have answered since one was silent; None: none was.
        self._proven: weakref.WeakSet[aiopg.Connection] | None = None

    async def acquire(self, timeout: float | None = None) -> Held:
        return await Held.hold(await self._live(timeout))

    async def _live(self, timeout: float | None = None) -> aiopg.Connection:
        async with _waiting_at_most(self._timeout if timeout is None else timeout):
            while True:
                connection = await self._acquired()
                if is_alive(connection) and await self._is_proven(connection):
                    return self._checked(connection)
                connection.close()
                self.pool.release(connection)

    def _checked(self, connection: aiopg.Connection) -> aiopg.Connection:
        try:
            check_encoding(connection.raw, THEIRS)
        except InvalidOption:
            self.pool.release(connection)
            raise
        return connection

    async def check(self) -> None:
        """Look at an idle connection, if there is one. Raises `InvalidOption` for its encoding."""
        if self.pool.freesize:
            with suppress(ConnectionFailed, PoolTimeout):  # the first session will tell
                self.pool.release(await self._live())

    async def _is_proven(self, connection: aiopg.Connection) -> bool:
        if self._proven is None or connection in self._proven:
            return True
        timer = asyncio.get_running_loop().call_later(PROOF_MAY_TAKE, sever, connection.raw)
        try:
            await (await Held.hold(connection)).command("SELECT 1")
        except ConnectorException:
            return False
        except BaseException:
            connection.close()
            self.pool.release(connection)
            raise
        finally:
            timer.cancel()
        if not is_alive(connection):  # it ended, or was severed, just as it answered
            return False
        self._proven.add(connection)
        return True

    async def _acquired(self) -> aiopg.Connection:
        try:
            with server_s_cancellation():
                return await self.pool.acquire()
        except psycopg2.Error as exc:
            raise connect_error(exc) from exc
        except RuntimeError as exc:
            raise ConnectionFailed(
                f"{THEIRS} has been closed by its owner: open with another one"
            ) from exc

    def release(self, held: Held) -> None:
        if held.reusable:
            held.cursor.close()
        else:
            held.connection.close()
        self.pool.release(held.connection)

    async def acquire_for_listening(self) -> aiopg.Connection:
        """Take one of the pool's connections, as only the pool knows how its owner connects."""
        if self.pool.maxsize == 1:
            raise ConfigurationError(
                f"{THEIRS} has maxsize=1, and listening holds a connection for itself: raise"
                " maxsize, or give the connector listen_dsn="
            )
        return await self._live()

    def release_from_listening(self, connection: aiopg.Connection) -> None:
        connection.close()
        self.pool.release(connection)

    def discard_idle(self) -> None:
        """Trust none of the others before it has answered (rule 3)."""
        self._proven = weakref.WeakSet()

    def close(self) -> None:
        """Leave the pool open: it is the application's."""


class _waiting_at_most:
    """`asyncio.timeout` that ends in `PoolTimeout`, also for aiopg's own timeout."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: object, exc: BaseException | None, tb: object) -> None:
        try:
            await self._timeout.__aexit__(type(exc) if exc else None, exc, None)
        except TimeoutError as timeout:
            raise _timed_out(self._seconds) from timeout
        if isinstance(exc, TimeoutError):
            raise _timed_out(self._seconds) from exc


def _timed_out(seconds: float | None) -> PoolTimeout:
    within = "the pool's own timeout" if seconds is None else f"{seconds:g} seconds"
    return PoolTimeout(
        f"no connection of the pool became free within {within}:"
        " raise maxsize or pool_timeout, or hold connections for less long"
    )
