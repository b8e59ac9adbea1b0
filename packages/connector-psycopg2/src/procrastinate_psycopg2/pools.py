"""Where sessions take their connections: our own pool, or one that the application handed in.

Rules

1. Both give out live connections in autocommit mode, wait for a free one up to a timeout, and
   take back connections outside of any transaction; whatever else comes back is closed.
2. psycopg2's pool fails at once when it is exhausted, connects while it holds its lock, and keeps
   only ``minconn`` connections, so that ten threads on ``minconn=1`` would reconnect for nearly
   every job. `WaitingPool` waits, connects without a lock, and keeps what it opened.
3. The application's pool can only be asked again and again when others have exhausted it. It is
   never closed, and its connections go back with the autocommit mode that they came with.
4. After a fork the sockets are the parent's: the child neither uses nor closes them, for a closing
   psycopg2 connection tells the server goodbye on the parent's behalf.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol, cast

import psycopg2
from psycopg2 import extensions
from psycopg2 import pool as psycopg2_pool

from procrastinate.errors import AppNotOpen, ConnectionFailed, InvalidOption, PoolTimeout
from procrastinate_psycopg2 import driver
from procrastinate_psycopg2.driver import Connection

THEIRS = "the psycopg2 pool given to open()"  # in messages
#: Seconds between two looks at an application's pool that is exhausted.
_LOOK_AGAIN = 0.01


class Source(Protocol):
    """Where sessions take their connections."""

    #: Whether this belongs to the process that ours was forked from.
    inherited: bool

    def acquire(self, timeout: float | None = None) -> Connection:
        """Return a live connection in autocommit mode, for one user.

        Waits ``timeout`` seconds for it, or for as long as the connector waits otherwise.
        """

    def release(self, connection: Connection, *, discard: bool = False) -> None:
        """Take back a connection that is outside of any transaction, or to be discarded."""

    def discard_idle(self) -> None:
        """Close idle connections, as they lead to a server that cannot be written to."""

    def close(self) -> None:
        """Close what belongs to the connector."""


class WaitingPool(psycopg2_pool.ThreadedConnectionPool):
    """A ThreadedConnectionPool that waits for a free connection and keeps those that it opened.

    ``timeout`` is in seconds, None waits for ever. Raises `ConnectionFailed` when the first
    ``minconn`` connections cannot be made.
    """

    inherited = False

    def __init__(
        self, minconn: int, maxconn: int, *, timeout: float | None, **arguments: Any
    ) -> None:
        self._timeout = timeout
        self._idle: list[Connection] = []  # append() and pop() are atomic
        self._made = 0  # connections idle, in use, or being made
        self._waiting = 0
        self._freed = threading.Condition(threading.Lock())
        super().__init__(minconn, maxconn, **arguments)

    def _connect(self, key: Any = None) -> Connection:
        """Add a connection to the idle ones: what the base class does ``minconn`` times."""
        connection = self._new()
        self._made += 1
        self._idle.append(connection)
        return connection

    def _new(self) -> Connection:
        arguments = cast(Any, self)._kwargs
        try:
            connection: Connection = psycopg2.connect(**arguments)
            connection.autocommit = True
        except psycopg2.Error as exc:
            raise driver.connect_error(exc) from exc
        return connection

    def getconn(self, key: Any = None) -> Connection:
        """Return an idle connection, else a new one, else wait for one. ``key`` is ignored."""
        return self.acquire()

    def acquire(self, timeout: float | None = None) -> Connection:
        if timeout is None:
            timeout = self._timeout
        while True:
            # A thread that waits goes first. Without waiters there is no lock to take: a semaphore
            # here cost 15 of the 270 microseconds of an insert and commit.
            connection = None if self._waiting else self._pop()
            if connection is None:
                connection = self._wait(timeout)
            if connection is None:
                return self._make()
            if driver.looks_alive(connection):
                return connection
            self._drop(connection)

    def _pop(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _wait(self, timeout: float | None) -> Connection | None:
        """Return an idle connection, or None for the right to make one, as soon as there is one."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._freed:
            self._waiting += 1  # before looking: putconn() adds first and then looks for waiters
            try:
                while True:
                    if self.closed:
                        raise _closed()
                    connection = self._pop()
                    if connection is not None:
                        return connection
                    if self._made < self.maxconn:
                        self._made += 1
                        return None
                    remaining = None if deadline is None else deadline - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        raise _timed_out(self.maxconn, timeout)
                    self._freed.wait(remaining)
            finally:
                self._waiting -= 1

    def _make(self) -> Connection:
        try:
            return self._new()
        except BaseException:
            self._give_up_one()
            raise

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._give_up_one()

    def _give_up_one(self) -> None:
        with self._freed:
            self._made -= 1
            self._freed.notify()

    def putconn(self, conn: Any = None, key: Any = None, close: bool = False) -> None:
        """Take a connection back. ``key`` is ignored."""
        if close or self.closed:
            self._drop(conn)
            return
        self._idle.append(conn)
        if self._waiting:
            with self._freed:
                self._freed.notify()
        if self.closed:  # meanwhile
            self.discard_idle()

    def closeall(self) -> None:
        """Close idle connections now, and those in use as soon as they come back."""
        self.closed = True
        self.discard_idle()
        with self._freed:
            self._freed.notify_all()

    # As a source

    def release(self, connection: Connection, *, discard: bool = False) -> None:
        self.putconn(connection, close=discard)

    def discard_idle(self) -> None:
        while (connection := self._pop()) is not None:
            self._drop(connection)

    def close(self) -> None:
        self.closeall()

    def renewed(self) -> WaitingPool:
        """Return a pool like this one with no connections yet, for a process forked off."""
        arguments = cast(Any, self)._kwargs
        return WaitingPool(0, self.maxconn, timeout=self._timeout, **arguments)


class BorrowedPool:
    """The application's own pool, which others use too."""

    inherited = False

    def __init__(self, pool: Any, *, timeout: float | None) -> None:
        self.pool = pool
        self._timeout = timeout
        self._slots = threading.Semaphore(max(1, pool.maxconn))
        self._autocommit: dict[int, bool] = {}

    def acquire(self, timeout: float | None = None) -> Connection:
        if timeout is None:
            timeout = self._timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._slots.acquire(timeout=timeout):
            raise _timed_out(self.pool.maxconn, timeout)
        try:
            return self._live(deadline, timeout)
        except BaseException:
            self._slots.release()
            raise

    def _live(self, deadline: float | None, timeout: float | None) -> Connection:
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
                    raise _timed_out(self.pool.maxconn, timeout) from exc
            except psycopg2.Error as exc:
                raise driver.connect_error(exc) from exc
            time.sleep(_LOOK_AGAIN)

    def _in_autocommit(self, connection: Connection) -> Connection:
        if connection.info.transaction_status != extensions.TRANSACTION_STATUS_IDLE:
            connection.rollback()
        self._autocommit[id(connection)] = connection.autocommit
        connection.autocommit = True
        return connection

    def release(self, connection: Connection, *, discard: bool = False) -> None:
        autocommit = self._autocommit.pop(id(connection), True)
        try:
            if not discard and not autocommit:
                connection.autocommit = False
        except psycopg2.Error:
            discard = True
        finally:
            self._put(connection, discard=discard)
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


class ForeignProcessPool:
    """Stands where the application's pool stood before the process was forked."""

    inherited = False

    def acquire(self, timeout: float | None = None) -> Connection:
        raise AppNotOpen(
            "the pool given to open() belongs to the process that this one was forked from: "
            "close() the app here and open() it with a pool made in this process"
        )

    def release(self, connection: Connection, *, discard: bool = False) -> None:
        """Leave the connection alone: it is the parent's."""

    def discard_idle(self) -> None:
        """Leave them alone."""

    def close(self) -> None:
        """Leave the pool alone: it is the parent's."""


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


def _timed_out(size: int, timeout: float | None) -> PoolTimeout:
    return PoolTimeout(
        f"all {size} connections of the pool stayed in use for {timeout} seconds: "
        "raise maxconn or pool_timeout, or hold connections for less long"
    )


def _closed() -> AppNotOpen:
    return AppNotOpen("the connector was closed while a connection was asked for")


def _borrowed_closed() -> ConnectionFailed:
    return ConnectionFailed(
        "the psycopg2 pool given to open() has been closed by its owner: open() with another one"
    )
