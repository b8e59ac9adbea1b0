"""Taking connections from an engine, and checking that it is one that we can use."""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, StaticPool

from procrastinate.connector import Query
from procrastinate.connector_tools import failures, forks
from procrastinate.connector_tools.calls import to_its_end
from procrastinate.connector_tools.limits import LIMITS
from procrastinate.connector_tools.loops import is_elsewhere
from procrastinate.connector_tools.plans import Permission, Plans
from procrastinate.errors import (
    ConnectionFailed,
    InvalidOption,
    PoolTimeout,
)
from procrastinate_sqlalchemy_async.drivers import driver_of
from procrastinate_sqlalchemy_async.leases import Lease, driver_error, first_line

#: Where SQLAlchemy keeps, with each connection to the server, what we know of it.
_MEMORY = "procrastinate"
_ASK_FOR_PID = Query("ask_for_pid", "SELECT pg_catalog.pg_backend_pid()")


def checked_engine(engine: Any) -> AsyncEngine:
    """Return the engine handed to ``open_async``. Raises `InvalidOption` for another object."""
    if isinstance(engine, Engine):
        raise InvalidOption(
            "open_async() takes an AsyncEngine, and this is a synchronous one: make it by"
            " sqlalchemy.ext.asyncio.create_async_engine(), or use procrastinate-sqlalchemy"
        )
    if not isinstance(engine, AsyncEngine):
        kind = type(engine)
        raise InvalidOption(
            "open_async() takes an AsyncEngine (sqlalchemy.ext.asyncio.create_async_engine), not"
            f" {kind.__module__}.{kind.__qualname__}"
        )
    driver_of(engine.dialect, "the engine given to open_async()")
    check_pool(engine, "the engine given to open_async()")
    return engine


def check_pool(engine: AsyncEngine, owner: str) -> None:
    """Refuse a pool of one connection that is not waited for. Raises `InvalidOption`."""
    if isinstance(engine.pool, StaticPool | AssertionPool):
        raise InvalidOption(
            f"{owner} has a {type(engine.pool).__name__}, that is one connection for all: make it"
            " with another pool class"
        )


async def is_direct(lease: Lease) -> bool:
    """Return whether nothing stands between a connection and one process of the server."""
    ((pid,),) = await lease.run(_ASK_FOR_PID, "")
    return bool(pid == lease.driver.server_pid)


class Source:
    """An engine, and whose it is.

    ``beside`` makes an engine without a pool to the same database, for a connection to LISTEN on:
    it would stay away from the pool, which may have no other.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        own: bool,
        shown: str = "",
        beside: Callable[[], AsyncEngine] | None = None,
    ) -> None:
        self.engine = engine
        self._beside = beside
        self.own = own
        self.driver = driver_of(engine.dialect, "the engine")
        self._shown = shown
        #: Whether nothing stands between a connection and one process of the server.
        self.direct = False
        self._permission = Permission()
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()
        self._in_use: set[int] = set()

    async def look(self) -> None:
        """Make one connection, or take one, and learn what it leads to.

        Raises `ConnectionFailed`, and `InvalidOption` for connections in another encoding.
        """
        lease = await self.acquire()
        try:
            self.direct = await is_direct(lease)
            self._permission.learn(self.direct)
        finally:
            await self.give_back(lease)

    async def acquire(self, timeout: float | None = None) -> Lease:
        """Return a live connection; ``timeout`` in seconds, None for the engine's own."""
        return await self._acquire(self.engine, timeout)

    async def acquire_to_listen(self) -> Lease:
        """Return a live connection that is closed at the end: beside the pool, if it is ours."""
        return await self._acquire(self.engine if self._beside is None else self._beside(), None)

    async def _acquire(self, engine: AsyncEngine, timeout: float | None) -> Lease:
        while True:
            connection = await self._connect(engine, timeout)
            try:
                lease = await self._leased(connection)
                if lease.driver.looks_alive():
                    await lease.take()
                    self._in_use.add(id(lease.driver.raw))
                    return lease
                lease.driver.sever()
                await connection.invalidate()
            except BaseException:
                await connection.close()
                raise
            await connection.close()

    async def _leased(self, connection: AsyncConnection) -> Lease:
        fairy = await connection.get_raw_connection()
        raw = fairy.driver_connection
        if is_elsewhere(loop_of(raw)):
            raise InvalidOption(
                "the engine given to open_async() holds connections that were made in another event"
                " loop: `await engine.dispose()` in that one, or make an engine for each event loop"
            )
        more: dict[str, Any] = {}
        plans = None
        if self.driver.name == "asyncpg":
            more["memory"] = fairy.info.setdefault(_MEMORY, {})
        driver = self.driver(raw, own=self.own, direct=self.direct, **more)
        if driver.ours_alone and driver.prepares_by_sql:
            plans = fairy.info.setdefault(_MEMORY, Plans(self._permission))
        failures.check_encoding(driver.encoding, "the engine")
        if driver.in_transaction:  # begun by a listener of the engine's, which keeps its settings
            await driver.command("COMMIT")
        return Lease(connection, fairy.dbapi_connection, driver, plans)

    async def _connect(self, engine: AsyncEngine, timeout: float | None) -> AsyncConnection:
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while True:
            waits = _is_exhausted(engine)
            try:
                # Only the wait for others has this limit: to connect has one of its own.
                async with asyncio.timeout_at(deadline if waits else None):
                    return await engine.connect()
            except sa_exc.TimeoutError as exc:
                if deadline is None or asyncio.get_running_loop().time() >= deadline:
                    raise self._timed_out() from exc
            except TimeoutError as exc:
                if waits:
                    raise self._timed_out() from exc
                where = failures.in_brackets(self._shown)
                raise ConnectionFailed(
                    f"cannot connect to PostgreSQL{where}: no answer in time"
                ) from exc
            except Exception as exc:
                raise self._not_connected(exc) from driver_error(exc, self.driver)

    def _timed_out(self) -> PoolTimeout:
        return PoolTimeout(
            f"no connection of the engine's pool became free ({self.engine.pool.status()}):"
            " raise pool_size or pool_timeout, or hold connections for less long"
        )

    def _not_connected(self, exc: Exception) -> Exception:
        cause = driver_error(exc, self.driver)
        # The last two: of arguments that the application has given its engine.
        if isinstance(cause, (*self.driver.errors, ValueError, TypeError, OverflowError)):
            sqlstate = getattr(cause, "sqlstate", None)
            return failures.cannot_connect(str(cause), where=self._shown, sqlstate=sqlstate)
        if isinstance(exc, sa_exc.SQLAlchemyError):
            return ConnectionFailed(f"cannot connect to PostgreSQL: {first_line(exc)}")
        return exc

    def release(self, lease: Lease, *, discard: bool = False) -> None:
        """Note what is to become of a connection; the session gives it back."""
        lease.broken |= discard

    async def give_back(self, lease: Lease) -> None:
        """Give a connection back to the engine's pool, or close it, whatever happens meanwhile."""
        self._in_use.discard(id(lease.driver.raw))
        if lease.broken:
            await to_its_end(lease.give_back(discard=True), lease.sever)
        else:
            await lease.give_back(discard=False)  # waits for nothing

    def made(self, raw: Any) -> None:
        """Note a new connection of our own engine."""
        self._made.add(raw)

    def discard_idle(self) -> None:
        """Shut idle connections of ours down: they are probably as silent."""
        for raw in list(self._made):
            if id(raw) not in self._in_use:
                self.driver(raw, own=self.own, direct=self.direct).sever()

    async def dispose(self) -> None:
        """Dispose of our own engine; the application's stays as it is."""
        if self.own:
            await self.engine.dispose()

    def close(self) -> None:
        """Shut our own engine's connections down, also if its event loop has ended."""
        if self.own:
            for raw in list(self._made):
                self.driver(raw, own=True, direct=self.direct).sever()
            self.engine.sync_engine.dispose(close=False)

    def leave_to_parent(self) -> None:
        """Let go of what belongs to the process that ours was forked from."""
        forks.leave_to_parent(self, self.engine, self.engine.sync_engine.pool, *self._made)
        for raw in list(self._made):
            fileno = self.driver(raw, own=True, direct=self.direct).fileno
            if fileno >= 0:
                forks.detach(fileno)


def loop_of(raw: Any) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that a driver's connection belongs to; None if it belongs to none."""
    loop: asyncio.AbstractEventLoop | None = getattr(raw, "_loop", None)  # no public word for it
    return loop


def _is_exhausted(engine: AsyncEngine) -> bool:
    """Return whether all connections that the pool may have are in use."""
    pool, room = engine.pool, capacity(engine)
    return isinstance(pool, QueuePool) and room is not None and pool.checkedout() >= room


def capacity(engine: AsyncEngine) -> int | None:
    """Return how many connections an engine's pool may have; None if that is not limited."""
    pool = engine.pool
    if isinstance(pool, NullPool) or not isinstance(pool, QueuePool):
        return None
    overflow = getattr(pool, "_max_overflow", 0)  # SQLAlchemy has no public word for it
    return None if overflow < 0 or pool.size() == 0 else int(pool.size() + overflow)


def set_keepalive(fileno: int) -> None:
    """Have the kernel give up a peer that acknowledges nothing, as libpq does by `LIMITS`."""
    options = (
        ("TCP_KEEPIDLE", LIMITS["keepalives_idle"]),
        ("TCP_KEEPINTVL", LIMITS["keepalives_interval"]),
        ("TCP_KEEPCNT", LIMITS["keepalives_count"]),
        ("TCP_USER_TIMEOUT", LIMITS["tcp_user_timeout"]),
    )
    with suppress(OSError), socket.socket(fileno=os.dup(fileno)) as shared:
        if shared.family not in (socket.AF_INET, socket.AF_INET6):
            return
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options:
            if hasattr(socket, name):
                shared.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
