"""The synchronous connector: web applications with threads, scripts, WSGI."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from procrastinate.connector import SessionExecutor, SyncConnector
from procrastinate.connector_tools import forks, urls
from procrastinate.connector_tools.plans import Permission
from procrastinate.connector_tools.pools import ForeignProcessPool, WaitingPool
from procrastinate.connector_tools.sessions import Session
from procrastinate.errors import AppNotOpen, InvalidOption
from procrastinate_psycopg import driver
from procrastinate_psycopg.connecting import connect
from procrastinate_psycopg.leases import SyncLease
from procrastinate_psycopg.options import URL_OPTIONS, read_options


class SyncPsycopgConnector(SyncConnector):
    """A synchronous connector over psycopg 3.

    ``min_size`` connections are made when it is opened and up to ``max_size`` when they are needed;
    with all of them in use, a caller waits up to ``pool_timeout`` seconds (None: for ever) and then
    gets `PoolTimeout`. ``conninfo`` is a connection string or URL, and all other arguments are
    libpq's: ``host``, ``port``, ``user``, ``password``, ``dbname``, ``options``, ``sslmode`` and so
    on; those that are absent come from libpq's environment (``PGHOST``, ...). A host that does not
    answer within 10 seconds is passed over, and a connection whose peer does not acknowledge
    anything is given up after 15 to 25 seconds; ``connect_timeout``, ``keepalives_idle``,
    ``keepalives_interval``, ``keepalives_count`` and ``tcp_user_timeout`` change that.

    Threads may share it. A process forked off gets a pool of its own; a pool that was handed to
    ``open`` stays with its process.

    Raises `InvalidOption` for an unknown or impossible argument and `ConfigurationError` for a
    malformed ``conninfo``.
    """

    contract: ClassVar[int] = 2
    chooses_plans: ClassVar[bool] = True

    def __init__(
        self,
        *,
        conninfo: str = "",
        json_dumps: Callable[[Any], str] | None = None,
        json_loads: Callable[[str], Any] | None = None,
        schema: str | None = None,
        min_size: int = 1,
        max_size: int = 10,
        pool_timeout: float | None = 30.0,
        **arguments: Any,
    ) -> None:
        super().__init__(json_dumps=json_dumps, json_loads=json_loads, schema=schema)
        self._options = read_options(
            conninfo,
            min_size=min_size,
            max_size=max_size,
            pool_timeout=pool_timeout,
            arguments=arguments,
        )
        self._lock = threading.Lock()
        self._own: WaitingPool[SyncLease] | None = None
        self._borrowed: Any = None
        forks.call_after_fork(self)

    @classmethod
    def from_url(cls, url: str) -> SyncPsycopgConnector:
        """Return a connector for ``psycopg-sync://user:password@host:port/database?option=value``.

        The options are libpq's, and ``min_size``, ``max_size``, ``pool_timeout`` and ``schema``.
        Raises `ConfigurationError` for an URL that cannot be one.
        """
        conninfo, options = urls.split_url(url, URL_OPTIONS)
        return cls(conninfo=conninfo, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._options.shown}>"

    def open(self, pool: Any = None) -> None:
        """Connect, or take the application's ``psycopg_pool.ConnectionPool``, which stays its own.

        Raises `ConnectionFailed` if no connection can be made, `InvalidOption` for an object that
        is no open pool, or if the connector is open with another one.
        """
        with self._lock:
            if self._own is None and self._borrowed is None:
                self._open(pool)
            elif pool is not None and getattr(self._borrowed, "pool", None) is not pool:
                raise InvalidOption("the connector is open already, with another pool: close it")

    def _open(self, pool: Any) -> None:
        if pool is not None:
            from procrastinate_psycopg.borrowed import borrowed  # loads psycopg_pool

            self._borrowed = borrowed(pool, self._options.pool_timeout)
            return
        options, permission = self._options, Permission()
        own = WaitingPool(
            lambda: connect(options.parameters, permission),
            close=SyncLease.close,
            is_good=_is_good,
            minimum=options.min_size,
            maximum=options.max_size,
            timeout=options.pool_timeout,
        )
        own.fill()
        self._own = own

    def close(self) -> None:
        """Close the pool unless it was handed in; connections in use close when they come back."""
        with self._lock:
            own, self._own, self._borrowed = self._own, None, None
        if own is not None:
            own.close()

    def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AbstractContextManager[SessionExecutor]:
        """Return a block holding one connection.

        Raises `AppNotOpen` before `open`; entering it raises `ConnectionFailed` or `PoolTimeout`
        if no connection is to be had.
        """
        source = self._own or self._borrowed
        if source is None:
            raise AppNotOpen("the connector is not open: call app.open() first")
        return Session(source, transaction=transaction, read_only=read_only, timeout=timeout)

    def after_fork(self) -> None:
        """Leave the parent its connections; its lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        if self._own is not None:
            self._own.inherited = True
            forks.leave_to_parent(self._own)
            self._own = self._own.renewed()
        if self._borrowed is not None:
            self._borrowed.inherited = True
            forks.leave_to_parent(self._borrowed)
            self._borrowed = ForeignProcessPool("psycopg pool")


def _is_good(lease: SyncLease) -> bool:
    return driver.looks_alive(lease.pgconn)
