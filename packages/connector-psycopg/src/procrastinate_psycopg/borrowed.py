"""Connections of the application's own psycopg_pool, which others use too.

Rules

1. The pool is used by its public methods only and is never closed. A connection goes back as it
   came: outside of any transaction, and with nothing of it changed.
2. psycopg_pool hands out connections that the server has closed. So each is looked at before it is
   used; a dead one goes back closed, and the pool makes another.
3. The pool's idle connections cannot be closed from here. So once one of its connections was
   severed because it was silent, each of the others has to answer before it is used.
4. On these connections nothing is prepared: they may be behind a pooler, and they are not ours.
5. LISTEN takes a connection of the pool, because only the owner knows how the pool connects. It
   hears nothing any more when it goes back. Closed, it would be a warning in the pool's log.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from contextlib import suppress
from typing import Any, NoReturn

import psycopg
import psycopg_pool

from procrastinate.connector import Query
from procrastinate.connector_tools import failures
from procrastinate.errors import (
    ConfigurationError,
    ConnectionFailed,
    ConnectorException,
    InvalidOption,
    PoolTimeout,
)
from procrastinate_psycopg import driver
from procrastinate_psycopg.leases import AsyncLease, SyncLease

THEIRS = "the psycopg pool given to {method}()"  # in messages
PROOF_MAY_TAKE = 2.0  # seconds for a connection to show that it lives (rule 3)
UNLISTEN_MAY_TAKE = 2.0  # seconds
#: Seconds to wait for a connection that the pool has idle, for a look at it.
_LOOK_MAY_TAKE = 1.0
_PROOF = Query("prove", "SELECT 1")
#: Arguments of psycopg.connect() that are not libpq's.
_NOT_OF_LIBPQ = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")


class _Proofs:
    """Which connections need no proof that they live (rule 3)."""

    def __init__(self) -> None:
        #: Those that have answered since one was silent; None: none was.
        self._proven: weakref.WeakSet[Any] | None = None

    def distrust(self) -> None:
        self._proven = weakref.WeakSet()

    def needed(self, connection: Any) -> bool:
        return self._proven is not None and connection not in self._proven

    def given(self, connection: Any) -> None:
        if self._proven is not None:
            self._proven.add(connection)


def _check(connection: psycopg.BaseConnection[Any], method: str) -> None:
    encoding = driver.reported(connection.pgconn, "client_encoding")
    failures.check_encoding(encoding, THEIRS.format(method=method))


def _not_given(exc: Exception, pool: Any, seconds: float, method: str) -> NoReturn:
    """Raise the error for a pool that gave no connection."""
    if isinstance(exc, psycopg_pool.PoolClosed):
        raise ConnectionFailed(
            f"{THEIRS.format(method=method)} has been closed by its owner: open with another one"
        ) from exc
    if isinstance(exc, psycopg_pool.PoolTimeout | psycopg_pool.TooManyRequests):
        raise PoolTimeout(
            f"the psycopg pool (max_size={pool.max_size}) gave no connection within {seconds:g}"
            " seconds: its connections stayed in use, or it cannot connect, which the log of"
            " psycopg.pool says"
        ) from exc
    raise failures.cannot_connect(exc) from exc


class SyncBorrowed:
    """A ``ConnectionPool`` as a source of sessions."""

    inherited = False

    def __init__(self, pool: psycopg_pool.ConnectionPool[Any], *, timeout: float | None) -> None:
        self.pool = pool
        self._timeout = timeout
        self._proofs = _Proofs()

    def acquire(self, timeout: float | None = None) -> SyncLease:
        """Return a live connection. Raises `PoolTimeout`, `ConnectionFailed`, `InvalidOption`."""
        seconds = _seconds(timeout, self._timeout, threading.TIMEOUT_MAX)
        deadline = time.monotonic() + seconds
        while True:
            connection = self._given(max(0.0, deadline - time.monotonic()), seconds)
            try:
                if driver.looks_alive(connection.pgconn):
                    lease = SyncLease(connection, is_lent=True)
                    if self._is_proven(lease):
                        _check(connection, "open")
                        return lease
            except BaseException:
                self.pool.putconn(connection)
                raise
            self._discard(connection)

    def _given(self, remaining: float, seconds: float) -> psycopg.Connection[Any]:
        try:
            connection: psycopg.Connection[Any] = self.pool.getconn(timeout=remaining)
        except psycopg.Error as exc:
            _not_given(exc, self.pool, seconds, "open")
        return connection

    def _is_proven(self, lease: SyncLease) -> bool:
        if self._proofs.needed(lease.connection):
            timer = threading.Timer(PROOF_MAY_TAKE, lease.sever)
            timer.start()
            try:
                lease.run(_PROOF)
            except ConnectorException:
                return False
            finally:
                timer.cancel()
            if not driver.looks_alive(lease.pgconn):
                return False
            self._proofs.given(lease.connection)
        return True

    def release(self, lease: SyncLease, *, discard: bool = False) -> None:
        """Give a connection back to the pool, closed if it is to be discarded."""
        if discard:
            self._discard(lease.connection)
        else:
            self.pool.putconn(lease.connection)

    def _discard(self, connection: Any) -> None:
        connection.close()
        self.pool.putconn(connection)

    def discard_idle(self) -> None:
        """Trust none of the others before it has answered (rule 3)."""
        self._proofs.distrust()

    def close(self) -> None:
        """Leave the pool open: it is the application's."""


class AsyncBorrowed:
    """An ``AsyncConnectionPool`` as a source of sessions."""

    def __init__(
        self, pool: psycopg_pool.AsyncConnectionPool[Any], *, timeout: float | None
    ) -> None:
        self.pool = pool
        self._timeout = timeout
        self._proofs = _Proofs()
        self._returns: set[asyncio.Task[None]] = set()

    async def look(self) -> None:
        """Look at an idle connection, if there is one. Raises `InvalidOption` for its encoding."""
        if self.pool.get_stats().get("pool_available"):
            with suppress(ConnectionFailed, PoolTimeout):  # the first session will tell, or wait
                self.release(await self.acquire(_LOOK_MAY_TAKE))

    async def acquire(self, timeout: float | None = None) -> AsyncLease:
        """Return a live connection. Raises `PoolTimeout`, `ConnectionFailed`, `InvalidOption`."""
        await self.all_returned()  # or the pool makes a connection in the place of one of those
        seconds = _seconds(timeout, self._timeout, threading.TIMEOUT_MAX)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            connection = await self._given(max(0.0, deadline - loop.time()), seconds)
            try:
                if driver.looks_alive(connection.pgconn):
                    lease = AsyncLease(connection, is_lent=True)
                    if await self._is_proven(lease):
                        _check(connection, "open_async")
                        return lease
                    lease.unwatch()
            except BaseException:
                self._give_back(connection)
                raise
            self._discard(connection)

    async def _given(self, remaining: float, seconds: float) -> psycopg.AsyncConnection[Any]:
        try:
            connection: psycopg.AsyncConnection[Any] = await self.pool.getconn(timeout=remaining)
        except psycopg.Error as exc:
            _not_given(exc, self.pool, seconds, "open_async")
        return connection

    async def _is_proven(self, lease: AsyncLease) -> bool:
        if self._proofs.needed(lease.connection):
            timer = asyncio.get_running_loop().call_later(PROOF_MAY_TAKE, lease.sever)
            try:
                await lease.run(_PROOF)
            except ConnectorException:
                return False
            finally:
                timer.cancel()
                lease.unwatch()
            if not driver.looks_alive(lease.pgconn):
                return False
            self._proofs.given(lease.connection)
        return True

    def release(self, lease: AsyncLease, *, discard: bool = False) -> None:
        """Give a connection back to the pool, closed if it is to be discarded."""
        if discard:
            lease.close()
        else:
            lease.unwatch()
        self._give_back(lease.connection)

    async def release_from_listening(self, lease: AsyncLease, unlisten: str | None) -> None:
        """Give a connection back that has listened; closed unless ``unlisten`` ends that soon."""
        discard = True
        timer = asyncio.get_running_loop().call_later(UNLISTEN_MAY_TAKE, lease.sever)
        try:
            if unlisten is not None and driver.is_idle(lease.pgconn):
                await lease.run(Query("unlisten", unlisten))
                while lease.pgconn.notifies() is not None:
                    pass
                discard = False
        except ConnectorException:
            pass  # it is closed
        finally:
            timer.cancel()
            self.release(lease, discard=discard)

    def _discard(self, connection: Any) -> None:
        connection.pgconn.finish()
        self._give_back(connection)

    def _give_back(self, connection: Any) -> None:
        """Give a connection back soon: psycopg_pool's method is a coroutine."""
        task = asyncio.get_running_loop().create_task(self.pool.putconn(connection))
        self._returns.add(task)
        task.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._returns.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the pool was closed, and has closed the connection

    async def all_returned(self) -> None:
        """Wait until the pool has back what was given back."""
        if self._returns:
            await asyncio.wait(set(self._returns))

    def discard_idle(self) -> None:
        """Trust none of the others before it has answered (rule 3)."""
        self._proofs.distrust()

    def close(self) -> None:
        """Leave the pool open: it is the application's."""


def _seconds(asked: float | None, own: float | None, for_ever: float) -> float:
    seconds = own if asked is None else asked
    return for_ever if seconds is None else seconds


def borrowed(pool: Any, timeout: float | None) -> SyncBorrowed:
    """Return the source for a pool handed to ``open``. Raises `InvalidOption` for anything else."""
    if isinstance(pool, psycopg_pool.AsyncConnectionPool):
        raise InvalidOption(
            "open() takes a psycopg_pool.ConnectionPool: an AsyncConnectionPool is for"
            " `await app.open_async(pool)` of a PsycopgConnector"
        )
    if not isinstance(pool, psycopg_pool.ConnectionPool):
        raise InvalidOption(f"open() takes a psycopg_pool.ConnectionPool, not {_kind(pool)}")
    _check_open(pool, "open")
    source = SyncBorrowed(pool, timeout=timeout)
    if pool.get_stats().get("pool_available"):
        _look_at(source)
    return source


def _look_at(source: SyncBorrowed) -> None:
    try:
        source.release(source.acquire(_LOOK_MAY_TAKE))
    except (ConnectionFailed, PoolTimeout):  # the first session will tell, or wait
        pass


def checked_pool(pool: Any) -> psycopg_pool.AsyncConnectionPool[Any]:
    """Return the pool handed to ``open_async``.

    Raises `InvalidOption` for anything else, and for a pool of another event loop.
    """
    if isinstance(pool, psycopg_pool.ConnectionPool):
        raise InvalidOption(
            "open_async() takes a psycopg_pool.AsyncConnectionPool: a ConnectionPool is for"
            " `app.open(pool)` of a SyncPsycopgConnector"
        )
    if not isinstance(pool, psycopg_pool.AsyncConnectionPool):
        raise InvalidOption(
            f"open_async() takes a psycopg_pool.AsyncConnectionPool, not {_kind(pool)}"
        )
    _check_open(pool, "open_async")
    _check_loop(pool)
    return pool


def _check_open(pool: Any, method: str) -> None:
    if pool.closed:
        raise InvalidOption(
            f"{THEIRS.format(method=method)} is closed, or was never opened: open it first"
        )


def _check_loop(pool: Any) -> None:
    # psycopg_pool has no public word for its event loop; its tasks know it.
    for task in getattr(pool, "_workers", ()):
        loop = task.get_loop() if isinstance(task, asyncio.Task) else None
        if loop is not None and loop is not asyncio.get_running_loop():
            raise InvalidOption(
                f"{THEIRS.format(method='open_async')} was opened in another event loop: open it in"
                " this one"
            )


def _kind(pool: Any) -> str:
    return f"{type(pool).__module__}.{type(pool).__qualname__}"


def arguments_of(pool: psycopg_pool.AsyncConnectionPool[Any]) -> dict[str, Any]:
    """Return what connections to the same database are made with, as far as the pool says it.

    Raises `ConfigurationError` if it does not.
    """
    conninfo, arguments = pool.conninfo, pool.kwargs
    if not isinstance(conninfo, str) or callable(arguments):
        raise ConfigurationError(
            f"{THEIRS.format(method='open_async')} finds out where to connect to each time it"
            " connects: give PsycopgConnector the same conninfo= for synchronous calls and workers"
        )
    of_libpq = {k: v for k, v in (arguments or {}).items() if k not in _NOT_OF_LIBPQ}
    return {"conninfo": conninfo, **of_libpq}
