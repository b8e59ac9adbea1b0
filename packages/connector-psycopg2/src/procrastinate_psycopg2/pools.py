"""Where sessions take their connections: our own pool, or one that the application handed in.

Rules

1. Both give out live connections in autocommit mode, wait for a free one up to a timeout, and
   take back connections outside of any transaction; whatever else comes back is closed.
2. psycopg2's pool fails at once when it is exhausted, connects while it holds its lock, and keeps
   only ``minconn`` connections, so that ten threads on ``minconn=1`` would reconnect for nearly
   every job. So our own is `procrastinate.connector_tools.pools.WaitingPool`.
3. The application's pool can only be asked again and again when others have exhausted it. It is
   never closed, and its connections go back with the autocommit mode that they came with.
4. After a fork the sockets are the parent's: see `procrastinate.connector_tools.forks`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import psycopg2
from psycopg2 import extensions
from psycopg2 import pool as psycopg2_pool

from procrastinate.connector_tools.failures import timed_out
from procrastinate.connector_tools.plans import Permission, Plans
from procrastinate.connector_tools.pools import WaitingPool
from procrastinate.errors import ConnectionFailed, InvalidOption
from procrastinate_psycopg2 import driver
from procrastinate_psycopg2.driver import Connection
from procrastinate_psycopg2.sessions import LENT, Lease

THEIRS = "the psycopg2 pool given to open()"  # in messages
#: Seconds between two looks at an application's pool that is exhausted.
_LOOK_AGAIN = 0.01


def own_pool(
    minconn: int, maxconn: int, timeout: float | None, arguments: Mapping[str, Any]
) -> WaitingPool[Lease]:
    """Return a pool of our own, filled. Raises `ConnectionFailed`."""
    permission = Permission()
    pool = WaitingPool(
        lambda: _connected(arguments, permission),
        close=Lease.close,
        is_good=Lease.looks_alive,
        minimum=minconn,
        maximum=maxconn,
        timeout=timeout,
        size_option="maxconn",
    )
    pool.fill()
    return pool


def _connected(arguments: Mapping[str, Any], permission: Permission) -> Lease:
    try:
        connection: Connection = psycopg2.connect(**arguments)
        connection.autocommit = True
    except psycopg2.Error as exc:
        raise driver.connect_error(exc) from exc
    return Lease(connection, plans=Plans(permission))


class BorrowedPool:
    """The application's own pool, which others use too."""

    inherited = False

    def __init__(self, pool: Any, *, timeout: float | None) -> None:
        self.pool = pool
        LENT.note(pool)
        self._timeout = timeout
        self._slots = threading.Semaphore(max(1, pool.maxconn))

    def acquire(self, timeout: float | None = None) -> Lease:
        if timeout is None:
            timeout = self._timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._slots.acquire(timeout=timeout):
            raise timed_out(self.pool.maxconn, timeout, "maxconn")
        try:
            return self._live(deadline, timeout)
        except BaseException:
            self._slots.release()
            raise

    def _live(self, deadline: float | None, timeout: float | None) -> Lease:
        while True:
            connection = self._free(deadline, timeout)
            try:
                if driver.looks_alive(connection):
                    driver.check_encoding(connection, THEIRS)
                    return self._in_autocommit(connection)
            except BaseException as exc:
                self._put(connection, discard=not isinstance(exc, InvalidOption))
                raise
            self._put(connection, discard=True)

    def check(self) -> None:
        """Look at a connection, if the pool has one. Raises `InvalidOption` for its encoding."""
        try:
            connection = cast(Connection, self.pool.getconn())
        except (psycopg2_pool.PoolError, psycopg2.Error):  # the first session will tell, or wait
            return
        try:
            driver.check_encoding(connection, THEIRS)
        finally:
            self._put(connection, discard=False)

    def _free(self, deadline: float | None, timeout: float | None) -> Connection:
        """Return a connection of the pool as soon as it gives one."""
        while True:
            try:
                return cast(Connection, self.pool.getconn())
            except psycopg2_pool.PoolError as exc:
                if self.pool.closed:
                    raise _borrowed_closed() from exc
                if deadline is not None and time.monotonic() >= deadline:
                    raise timed_out(self.pool.maxconn, timeout, "maxconn") from exc
            except psycopg2.Error as exc:
                raise driver.connect_error(exc) from exc
            time.sleep(_LOOK_AGAIN)

    def _in_autocommit(self, connection: Connection) -> Lease:
        if connection.info.transaction_status != extensions.TRANSACTION_STATUS_IDLE:
            connection.rollback()
        lease = Lease(connection, was_autocommit=connection.autocommit)
        connection.autocommit = True
        return lease

    def release(self, lease: Lease, *, discard: bool = False) -> None:
        try:
            if not discard and not lease.was_autocommit:
                lease.connection.autocommit = False
        except psycopg2.Error:
            discard = True
        finally:
            self._put(lease.connection, discard=discard)
            self._slots.release()

    def _put(self, connection: Connection, *, discard: bool) -> None:
        try:
            self.pool.putconn(connection, close=discard)
        except psycopg2_pool.PoolError:  # the pool was closed while we held its connection
            connection.close()

    def discard_idle(self) -> None:
        """Leave the others alone: they are the application's."""

    def close(self) -> None:
        """Leave the pool open: it is the application's."""


def borrowed(pool: Any, timeout: float | None) -> BorrowedPool:
    """Return the source for a pool handed in. Raises `InvalidOption` for anything else."""
    if isinstance(pool, psycopg2_pool.SimpleConnectionPool):
        raise InvalidOption(
            "a psycopg2 SimpleConnectionPool cannot be shared by threads: "
            "hand in a ThreadedConnectionPool"
        )
    if not isinstance(pool, psycopg2_pool.AbstractConnectionPool):
        raise InvalidOption(
            f"open() takes a psycopg2 ThreadedConnectionPool, not {type(pool).__qualname__}"
        )
    if pool.closed:
        raise InvalidOption(f"{THEIRS} is closed")
    source = BorrowedPool(pool, timeout=timeout)
    source.check()
    return source


def _borrowed_closed() -> ConnectionFailed:
    return ConnectionFailed(
        "the psycopg2 pool given to open() has been closed by its owner: open() with another one"
    )
