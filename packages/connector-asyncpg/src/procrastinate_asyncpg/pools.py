"""Where sessions take their connections: our own pool, or one that the application handed in.

Rules

1. asyncpg's own pool resets each connection that comes back, which is a round trip. Sessions leave
   nothing behind, so our own pool is core's.
2. Both give out connections that are alive before anything is sent on them, and take back clean
   ones; anything else is closed, which both pools take for "make a new one".
3. The application's pool is used by its public methods only and is never closed. Its idle
   connections cannot be closed from here. So once one of its connections was severed because it was
   silent, each of the others has to answer a short question before it is used.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from typing import Any, Protocol

import asyncpg

from procrastinate.connector import Query
from procrastinate.connector_tools.failures import check_encoding
from procrastinate.connector_tools.pools import AsyncPool
from procrastinate.errors import (
    ConnectionFailed,
    ConnectorException,
    InvalidOption,
    PoolTimeout,
)
from procrastinate_asyncpg.calls import fetched, to_its_end
from procrastinate_asyncpg.connecting import connect
from procrastinate_asyncpg.failures import DRIVER_ERRORS, cannot_connect, terminate
from procrastinate_asyncpg.held import Held, Known
from procrastinate_asyncpg.kinds import Connection, Pool
from procrastinate_asyncpg.options import Options

logger = logging.getLogger("procrastinate.asyncpg")

THEIRS = "the asyncpg pool given to open_async()"  # in messages
PROOF_MAY_TAKE = 2.0  # seconds for a connection of the application's pool to show that it lives


class Source(Protocol):
    """Where sessions take their connections."""

    async def acquire(self, timeout: float | None = None) -> Held: ...

    def release(self, lease: Held, *, discard: bool = False) -> None: ...

    def discard_idle(self) -> None: ...

    async def acquire_for_listening(self) -> Connection: ...

    async def release_from_listening(self, connection: Connection) -> None: ...

    def close(self) -> None: ...


class OwnPool:
    """A pool of our own, and the connections of listeners beside it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._known = Known(direct=None if options.connect.prepares else False)
        self._listeners: set[Connection] = set()
        self._pool: AsyncPool[Held] = AsyncPool(
            self._connect,
            close=lambda held: terminate(held.connection),
            is_good=Held.is_alive,
            minimum=options.min_size,
            maximum=options.max_size,
            timeout=options.pool_timeout,
        )
        self.acquire = self._pool.acquire
        self.release = self._pool.release
        self.discard_idle = self._pool.discard_idle

    async def fill(self) -> None:
        """Make the first connections. Raises `ConnectionFailed`."""
        await self._pool.fill()

    async def _connect(self) -> Held:
        held = Held(await connect(self._options.connect), self._known)
        if self._known.direct is None:
            try:
                await held.find_out()
            except BaseException:
                terminate(held.connection)
                raise
            if not self._known.direct:
                _tell_of_pooler(self._options)
        return held

    async def acquire_for_listening(self) -> Connection:
        connection = await connect(self._options.connect)
        self._listeners.add(connection)
        return connection

    async def release_from_listening(self, connection: Connection) -> None:
        self._listeners.discard(connection)
        terminate(connection)

    def close(self) -> None:
        self._pool.close()
        for connection in list(self._listeners):
            terminate(connection)
        self._listeners.clear()


_told_of: set[str] = set()  # the places of which the log has said that they are poolers


def _tell_of_pooler(options: Options) -> None:
    """Say so once: an app has connectors beside it, for plain calls and a worker's heartbeat."""
    place = options.connect.shown
    if place in _told_of:
        return
    _told_of.add(place)
    logger.warning(
        "the connection leads to a pooler such as PgBouncer (%s): no statement is prepared", place
    )


class GivenPool:
    """The application's own asyncpg pool, which others use too."""

    def __init__(self, pool: Pool, *, timeout: float | None) -> None:
        self.pool = pool
        self._timeout = timeout
        self._known = Known(direct=False)
        #: Those that have answered since one was silent; None: none was.
        self._proven: weakref.WeakSet[Any] | None = None
        self._releasing: set[asyncio.Task[None]] = set()

    async def check(self) -> None:
        """Look at a connection. Raises `InvalidOption` for its encoding."""
        if self.pool.get_idle_size():
            try:
                await self._give_back(await self._live(self._timeout))
            except (ConnectionFailed, PoolTimeout):  # the first session will tell
                return

    async def acquire(self, timeout: float | None = None) -> Held:
        return Held(await self._live(self._timeout if timeout is None else timeout), self._known)

    async def _live(self, timeout: float | None) -> Connection:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - loop.time())
            connection = await self._acquired(left, timeout)
            if Held(connection, self._known).is_alive() and await self._is_proven(connection):
                return await self._checked(connection)
            await self._give_back(connection, discard=True)

    async def _acquired(self, left: float | None, timeout: float | None) -> Connection:
        try:
            # With 0 seconds, asyncpg would give up before it has looked.
            seconds = None if left is None else max(left, 0.001)
            return await self.pool.acquire(timeout=seconds)
        except TimeoutError as exc:
            raise _timed_out(timeout) from exc
        except asyncpg.InterfaceError as exc:
            raise ConnectionFailed(
                f"{THEIRS} has been closed by its owner: open with another one"
            ) from exc
        except DRIVER_ERRORS as exc:
            raise cannot_connect(exc, "") from exc

    async def _checked(self, connection: Connection) -> Connection:
        try:
            # A pooler repeats it as asyncpg has asked for it: 'utf-8', with the quotes.
            said = str(connection.get_settings().client_encoding)
            check_encoding(said.strip("'").replace("-", "").upper(), THEIRS)
        except InvalidOption:
            await self._give_back(connection)
            raise
        except asyncpg.InterfaceError as exc:  # the server has closed it since
            await self._give_back(connection)
            raise cannot_connect(exc, "") from exc
        return connection

    async def _is_proven(self, connection: Any) -> bool:
        raw = getattr(connection, "_con", connection)
        if self._proven is None or raw in self._proven:
            return True
        timer = asyncio.get_running_loop().call_later(PROOF_MAY_TAKE, terminate, connection)
        query = Query("prove", "SELECT 1")
        try:
            await to_its_end(connection, fetched(connection, query), query)
        except ConnectorException:
            return False
        except BaseException:
            await self._give_back(connection, discard=True)
            raise
        finally:
            timer.cancel()
        self._proven.add(raw)
        return True

    def release(self, lease: Held, *, discard: bool = False) -> None:
        connection = lease.connection
        if discard:
            terminate(connection)
        task = asyncio.ensure_future(self._give_back(connection))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _give_back(self, connection: Connection, *, discard: bool = False) -> None:
        if discard:
            terminate(connection)
        try:
            await self.pool.release(connection)
        except DRIVER_ERRORS:  # the pool was closed, or the connection broke during its reset
            terminate(connection)
        except Exception:  # of the owner's reset=; the pool has closed the connection
            logger.warning("a callback of %s has failed", THEIRS, exc_info=True)

    async def acquire_for_listening(self) -> Connection:
        """Take one of the pool's connections, as only the pool knows how its owner connects."""
        return await self._live(self._timeout)

    async def release_from_listening(self, connection: Connection) -> None:
        await self._give_back(connection, discard=True)

    def discard_idle(self) -> None:
        """Trust none of the others before it has answered (rule 3)."""
        self._proven = weakref.WeakSet()

    def close(self) -> None:
        """Leave the pool open: it is the application's."""


def checked_pool(pool: Any) -> Pool:
    """Return the pool handed to ``open_async``. Raises `InvalidOption` for what cannot be used."""
    if not isinstance(pool, asyncpg.Pool):
        raise InvalidOption(
            "open_async() takes an asyncpg.Pool (`await asyncpg.create_pool(...)`), not"
            f" {type(pool).__module__}.{type(pool).__qualname__}"
        )
    if getattr(pool, "_closed", False) or pool.is_closing():
        raise InvalidOption(f"{THEIRS} is closed")
    if not getattr(pool, "_initialized", True):
        raise InvalidOption(f"{THEIRS} is not open yet: `await` it, or use `async with`")
    loop = getattr(pool, "_loop", None)
    if loop is not None and loop is not asyncio.get_running_loop():
        raise InvalidOption(f"{THEIRS} was made in another event loop: make it in this one")
    return pool


def _timed_out(seconds: float | None) -> PoolTimeout:
    within = "the pool's own timeout" if seconds is None else f"{seconds:g} seconds"
    return PoolTimeout(
        f"no connection of the pool became free within {within}:"
        " raise max_size or pool_timeout, or hold connections for less long"
    )
