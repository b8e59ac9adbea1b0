"""Taking connections from an engine, and checking that it is one that we can use.

Rules

1. Connections come from the engine's pool with all of its events. While anybody would see it (echo,
   a listener), each statement goes through SQLAlchemy too. Otherwise it goes to the driver
   directly: SQLAlchemy's result alone costs 100 microseconds beside an insert and commit of 290.
2. For the length of a session the driver's connection is in autocommit mode and, with psycopg2,
   makes plain cursors. Both are attributes on the client's side: they cost no round trip, where
   SQLAlchemy's isolation level option costs more than the whole session. Both go back as they were.
3. Pooled connections that the server has dropped are found by a look at the socket. The engine's
   own pre-ping, a round trip per checkout, stays the owner's choice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import Pool, QueuePool, SingletonThreadPool, StaticPool

from procrastinate.connector import Query
from procrastinate.connector_tools import failures
from procrastinate.errors import (
    ConnectionLost,
    ConnectorException,
    InvalidOption,
    PoolTimeout,
    database_error,
)
from procrastinate_sqlalchemy.drivers import Driver, check_dialect, driver_of


def checked_engine(engine: Any, drivers: Sequence[str]) -> Engine:
    """Return the engine handed to ``open``. Raises `InvalidOption` for what cannot be used."""
    if not isinstance(engine, Engine):
        hint = ""
        if isinstance(getattr(engine, "sync_engine", None), Engine):
            hint = ": an AsyncEngine is for procrastinate-sqlalchemy-async's connector"
        raise InvalidOption(
            f"open() takes an SQLAlchemy Engine on {' or '.join(drivers)}, not"
            f" {type(engine).__qualname__}{hint}"
        )
    check_dialect(engine.dialect, "the engine given to open()", drivers)
    return engine


def real_connection(connection: Connection) -> Any:
    """Return the driver's connection that an SQLAlchemy Connection stands on."""
    return driver_of(connection.dialect).real_connection(_of_driver(connection))


def _of_driver(connection: Connection) -> Any:
    """Return the driver's connection; a detached one is known as its adapter only."""
    pooled: Any = connection.connection
    if pooled.driver_connection is not None:
        return pooled.driver_connection
    return connection.dialect.get_driver_connection(pooled.dbapi_connection)


def is_watched(connection: Connection) -> bool:
    """Say whether the log or a listener of the engine's would see a statement.

    SQLAlchemy has no public question for that; without its answer the statement is visible.
    """
    return bool(
        getattr(connection, "_echo", True)
        or getattr(connection, "_has_events", True)
        or getattr(connection.engine, "_has_events", True)
        or getattr(connection.dialect, "_has_events", True)
    )


def check_connections(engine: Engine) -> None:
    """Look at a connection of the application's. Raises `InvalidOption` for its encoding.

    A new one is closed afterwards: a process may be forked off before it makes its own.
    """
    if isinstance(engine.pool, StaticPool | SingletonThreadPool):  # in use, perhaps; it has one
        return
    idle = getattr(engine.pool, "checkedin", lambda: 0)()
    try:
        lease = Lease(engine)
    except ConnectorException:  # the first session will tell
        return
    if not idle:
        lease.connection.invalidate()
    lease.close()


LOOK_AGAIN = 0.01  # seconds between two looks at a pool that is exhausted


def wait_for_room(engine: Engine, seconds: float) -> None:
    """Wait until an engine's pool can give a connection at once. Raises `PoolTimeout`.

    Another user may be quicker then; the pool's own time to wait begins in that case.
    """
    deadline = time.monotonic() + seconds
    while _is_exhausted(engine):
        if time.monotonic() >= deadline:
            raise _exhausted(engine)
        time.sleep(LOOK_AGAIN)


def _is_exhausted(engine: Engine) -> bool:
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return False
    room: int = getattr(pool, "_max_overflow", -1)
    return room >= 0 and pool.checkedout() >= pool.size() + room


def _exhausted(engine: Engine) -> PoolTimeout:
    return PoolTimeout(
        f"no connection of the engine's pool became free ({engine.pool.status()}): raise "
        "pool_size or pool_timeout, or hold connections for less long"
    )


TURN_MAY_TAKE = 30.0  # seconds until another thread's session has ended, as in QueuePool
_turns: WeakKeyDictionary[Pool, threading.RLock] = WeakKeyDictionary()


def _turn(engine: Engine) -> threading.RLock | None:
    """Wait until no other thread has a session, if the pool has one connection for all of them.

    Threads that send on one connection at once would be in each other's transactions, and psycopg2
    then waits for ever. Raises `PoolTimeout`.
    """
    if not isinstance(engine.pool, StaticPool):
        return None
    turn = _turns.setdefault(engine.pool, threading.RLock())
    if not turn.acquire(timeout=TURN_MAY_TAKE):
        raise PoolTimeout(
            "the engine's StaticPool shares one connection, and other threads were using it for"
            f" {TURN_MAY_TAKE:g} s: use another pool class"
        )
    return turn


class Lease:
    """A connection of an engine, made ready for a session, and given back as it was."""

    __slots__ = ("_before", "_turn", "connection", "over", "real", "watched")

    def __init__(self, engine: Engine) -> None:
        self.over = driver_of(engine.dialect)
        self._turn = _turn(engine)
        try:
            self._make_ready(engine)
        except BaseException:
            if self._turn is not None:
                self._turn.release()
            raise

    def _make_ready(self, engine: Engine) -> None:
        self.connection, self.real = _live_connection(engine, self.over)
        self.watched = is_watched(self.connection)
        try:
            self._take(engine)
        except self.over.error as exc:
            self.connection.invalidate()
            self.connection.close()
            raise self.over.translate(exc, Query("take", "")) from exc
        except BaseException:
            self.connection.close()
            raise

    def _take(self, engine: Engine) -> None:
        over, real = self.over, self.real
        over.check_encoding(real, "the engine")
        if not over.is_idle(real):
            _end_transaction(real, engine)
        self._before = over.take(real)

    def close(self) -> None:
        """Give the connection back to the engine's pool; it is outside of any transaction."""
        try:
            self.over.restore(self.real, self._before)
        except self.over.error:
            self.connection.invalidate()
        finally:
            try:
                self.connection.close()
            finally:
                if self._turn is not None:
                    self._turn.release()


def _end_transaction(real: Any, engine: Engine) -> None:
    """End what a listener of the engine's has begun at checkout, keeping its settings."""
    if isinstance(engine.pool, StaticPool | SingletonThreadPool):
        raise PoolTimeout(
            f"the engine's {type(engine.pool).__name__} shares one connection, and it is in the "
            "middle of a transaction: use another pool class"
        )
    real.commit()


def _live_connection(engine: Engine, over: Driver) -> tuple[Connection, Any]:
    while True:
        connection = _connect(engine, over)
        try:
            real = over.real_connection(connection.connection.driver_connection)
            if over.looks_alive(real):
                return connection, real
            connection.invalidate()
        except BaseException:
            connection.close()
            raise
        connection.close()


def _connect(engine: Engine, over: Driver) -> Connection:
    try:
        return engine.connect()
    except sa_exc.TimeoutError as exc:
        raise _exhausted(engine) from exc
    except Exception as exc:
        cause = driver_error(exc, over)
        if cause is not None:
            raise over.connect_error(cause) from cause
        if isinstance(exc, sa_exc.SQLAlchemyError):
            raise failures.cannot_connect(first_line(exc)) from exc
        raise


def driver_error(exc: BaseException | None, over: Driver) -> Exception | None:
    """Return the driver's error inside SQLAlchemy's, or inside one that a listener made of it."""
    while exc is not None and not isinstance(exc, over.error):
        exc = getattr(exc, "orig", None) or exc.__cause__
    return exc


def error_of(exc: Exception, query: Query, over: Driver) -> ConnectorException | None:
    """Return the error for what a statement raised.

    None for a mistake in our code, and for what a listener of the engine's has raised.
    """
    if isinstance(exc, ConnectorException):
        return exc
    cause = driver_error(exc, over)
    if cause is not None:
        _hide_values(exc)
        return over.translate(cause, query)
    if isinstance(exc, failures.VALUE_ERRORS):
        if failures.is_of_a_listener(exc, query):
            return None
        return failures.value_error(exc, query)
    if isinstance(exc, sa_exc.SQLAlchemyError):
        return database_error(f"{query.name}: {first_line(exc)}")
    return None


@contextmanager
def errors_of(query: Query, over: Driver) -> Iterator[None]:
    """Raise ours for what a statement raises through SQLAlchemy."""
    try:
        yield
    except Exception as exc:
        error = error_of(exc, query, over)
        if error is None or error is exc:
            raise
        raise error from (driver_error(exc, over) or exc)


def _hide_values(exc: BaseException) -> None:
    """Leave out of SQLAlchemy's error, which is a cause of ours, what repeats the parameters."""
    if isinstance(exc, sa_exc.StatementError):
        exc.hide_parameters = True
        exc.args = (first_line(exc),)


def lost(query: Query) -> ConnectionLost:
    """Return the error for a statement on a connection known to be broken."""
    return ConnectionLost(f"{query.name}: the connection broke during an earlier statement")


def first_line(exc: Exception) -> str:
    """Return SQLAlchemy's message without the statement and its parameters."""
    return str(exc).partition("\n")[0]


__all__ = [
    "Connection",
    "Engine",
    "Lease",
    "checked_engine",
    "driver_error",
    "errors_of",
    "lost",
    "real_connection",
]
