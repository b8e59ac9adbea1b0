"""The connector for classic synchronous I/O: web applications with threads, scripts, WSGI."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeAlias

from procrastinate.connector import SessionExecutor, SyncConnector
from procrastinate.connector_tools import forks
from procrastinate.connector_tools.pools import ForeignProcessPool, WaitingPool
from procrastinate.connector_tools.sessions import Session
from procrastinate.connector_tools.sizes import check_seconds, check_sizes
from procrastinate.connector_tools.urls import shown, split_url
from procrastinate.errors import AppNotOpen, InvalidOption
from procrastinate_psycopg2.dsn import check_dsn, for_our_own, without_factories
from procrastinate_psycopg2.pools import BorrowedPool, borrowed, own_pool
from procrastinate_psycopg2.sessions import Lease

_Source: TypeAlias = WaitingPool[Lease] | BorrowedPool | ForeignProcessPool[Lease]

_URL_OPTIONS: dict[str, Callable[[str], Any]] = {
    "minconn": int,
    "maxconn": int,
    "pool_timeout": float,
    "schema": str,
}


class Psycopg2Connector(SyncConnector):
    """A synchronous connector over a psycopg2 ThreadedConnectionPool.

    ``minconn`` connections are made when it is opened and up to ``maxconn`` when they are needed;
    with all of them in use, a caller waits up to ``pool_timeout`` seconds (None: for ever) and
    then gets `PoolTimeout`. All other arguments go to ``psycopg2.connect``: ``dsn``, ``host``,
    ``port``, ``user``, ``password``, ``dbname``, ``options``, ``connection_factory`` and whatever
    libpq knows; those that are absent come from libpq's environment (``PGHOST``, ...). A connection
    that cannot be made within 10 seconds is an error, and one whose peer does not acknowledge
    anything is given up after 15 to 25 seconds; ``connect_timeout``, ``keepalives_idle``,
    ``keepalives_interval``, ``keepalives_count`` and ``tcp_user_timeout`` change that.

    Threads may share it. A process forked off gets a pool of its own; a pool that was handed to
    ``open`` stays with its process.

    Raises `InvalidOption` for an unknown or impossible argument and `ConfigurationError` for a
    malformed ``dsn``.
    """

    contract: ClassVar[int] = 2
    chooses_plans: ClassVar[bool] = True

    def __init__(
        self,
        *,
        json_dumps: Callable[[Any], str] | None = None,
        json_loads: Callable[[str], Any] | None = None,
        schema: str | None = None,
        pool_timeout: float | None = 30.0,
        minconn: int = 1,
        maxconn: int = 10,
        **arguments: Any,
    ) -> None:
        super().__init__(json_dumps=json_dumps, json_loads=json_loads, schema=schema)
        check_sizes(least=("minconn", minconn), most=("maxconn", maxconn))
        if pool_timeout is not None:
            check_seconds("pool_timeout", pool_timeout)
        self._shown = _check_arguments(arguments)
        self._pool_timeout = pool_timeout
        self._sizes = (minconn, maxconn)
        self._arguments = arguments
        self._lock = threading.Lock()
        self._source: _Source | None = None
        forks.call_after_fork(self)

    @classmethod
    def from_url(cls, url: str) -> Psycopg2Connector:
        """Return a connector for ``psycopg2://user:password@host:port/database?option=value``.

        The options are libpq's, and ``minconn``, ``maxconn``, ``pool_timeout`` and ``schema``.
        Raises `ConfigurationError` for an URL that cannot be one.
        """
        dsn, options = split_url(url, _URL_OPTIONS)
        return cls(dsn=dsn, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._shown}>"

    def open(self, pool: Any = None) -> None:
        """Connect, or take the application's ``ThreadedConnectionPool``, which stays its own.

        Raises `ConnectionFailed` when no connection can be made, `InvalidOption` for an object
        that is not an open pool, or when the connector is open with another one.
        """
        with self._lock:
            if self._source is None:
                self._source = self._own_pool() if pool is None else self._borrowed(pool)
            elif pool is not None and not _is_over(self._source, pool):
                raise InvalidOption("the connector is open already, with another pool: close it")

    def _own_pool(self) -> WaitingPool[Lease]:
        return own_pool(*self._sizes, self._pool_timeout, for_our_own(self._arguments))

    def _borrowed(self, pool: Any) -> BorrowedPool:
        return borrowed(pool, self._pool_timeout)

    def close(self) -> None:
        """Close the pool unless it was handed in; connections in use close when they come back."""
        with self._lock:
            source, self._source = self._source, None
        if source is not None:
            source.close()

    def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AbstractContextManager[SessionExecutor]:
        """Return a block holding one connection; wait for it ``timeout`` seconds, if that is given.

        Raises `AppNotOpen` before `open`; entering it raises `ConnectionFailed` or `PoolTimeout`
        when no connection is to be had.
        """
        source = self._source
        if source is None:
            raise AppNotOpen("the connector is not open: call app.open() first")
        return Session(source, transaction=transaction, read_only=read_only, timeout=timeout)

    def after_fork(self) -> None:
        """Leave the parent its sockets; its lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        source = self._source
        if source is None:
            return
        source.inherited = True
        forks.leave_to_parent(source)
        if isinstance(source, WaitingPool):
            self._source = source.renewed()
        else:
            self._source = ForeignProcessPool("pool")


def _is_over(source: _Source, pool: Any) -> bool:
    return isinstance(source, BorrowedPool) and source.pool is pool


def _check_arguments(arguments: dict[str, Any]) -> str:
    """Return what may be shown of the connection's arguments."""
    if arguments.get("async") or arguments.get("async_"):
        raise InvalidOption("async connections cannot be used here: leave async_ out")
    return shown(check_dsn(**without_factories(arguments)))
