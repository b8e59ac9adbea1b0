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
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import aiopg
import psycopg2

from procrastinate.connector_tools.plans import Permission, Plans
from procrastinate.connector_tools.pools import AsyncPool
from procrastinate.connector_tools.sessions import AsyncSource
from procrastinate.errors import (
    ConfigurationError,
    ConnectionFailed,
    ConnectorException,
    InvalidOption,
    PoolTimeout,
)
from procrastinate_aiopg.calls import server_s_cancellation
from procrastinate_aiopg.held import Held, close_quietly, is_alive
from procrastinate_aiopg.sessions import LENT
from procrastinate_psycopg2.driver import check_encoding, connect_error, sever

THEIRS = "the aiopg pool given to open_async()"  # in messages
PROOF_MAY_TAKE = 2.0  # seconds for a connection of the application's pool to show that it lives


class Source(AsyncSource[Held], Protocol):
    """Where sessions and listeners take their connections."""

    async def acquire_for_listening(self) -> aiopg.Connection:
        """Return a connection for a listener, outside of the limit where that can be."""

    def release_from_listening(self, connection: aiopg.Connection) -> None:
        """Close a listener's connection."""

    def close(self) -> None:
        """Close what is ours, at once, also connections in use."""


class OwnPool(AsyncPool[Held]):
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
        super().__init__(
            self._held,
            close=lambda held: close_quietly(held.connection),
            is_good=self._is_alive,
            minimum=minsize,
            maximum=maxsize,
            timeout=timeout,
            size_option="maxsize",
        )
        self._connect_aiopg = connect
        self._recycle = recycle
        self._listeners: set[aiopg.Connection] = set()
        self._may_prepare = Permission()

    async def _held(self) -> Held:
        held = await Held.hold(await self._connect_aiopg())
        held.plans = Plans(self._may_prepare)
        return held

    def _is_alive(self, held: Held) -> bool:
        if -1 < self._recycle < self._loop.time() - held.idle_since:
            return False
        # A notice that came in idleness is the server's farewell; `release` left none.
        return is_alive(held.connection) and not held.raw.notices

    def release(self, connection: Held, *, discard: bool = False) -> None:
        if not discard:
            connection.idle_since = self._loop.time()
            if connection.raw.notices:
                del connection.raw.notices[:]
        super().release(connection, discard=discard)

    async def acquire_for_listening(self) -> aiopg.Connection:
        connection = await self._connect_aiopg()
        self._listeners.add(connection)
        return connection

    def release_from_listening(self, connection: aiopg.Connection) -> None:
        self._listeners.discard(connection)
        close_quietly(connection)

    def close(self) -> None:
        super().close()
        for connection in self._listeners:
            close_quietly(connection)
        self._listeners.clear()


class GivenPool:
    """The application's own aiopg pool, which others use too."""

    def __init__(self, pool: aiopg.Pool, *, timeout: float | None) -> None:
        self.pool = pool
        LENT.note(pool)
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

    def release(self, lease: Held, *, discard: bool = False) -> None:
        if discard:
            lease.connection.close()
        else:
            lease.cursor.close()
        self.pool.release(lease.connection)

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
