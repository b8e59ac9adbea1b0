"""The connector for applications on SQLAlchemy: one engine and one pool for both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

import sqlalchemy
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import URL, Engine, make_url

from procrastinate.connector import SessionExecutor, SyncConnector
from procrastinate.connector_tools import forks
from procrastinate.connector_tools.urls import check_host, check_url, shown, split_url
from procrastinate.errors import AppNotOpen, ConfigurationError, InvalidOption
from procrastinate_psycopg2.dsn import check_dsn, for_our_own
from procrastinate_sqlalchemy import drivers, engines
from procrastinate_sqlalchemy.drivers import Driver
from procrastinate_sqlalchemy.sessions import Session, Source

_URL_OPTIONS: dict[str, Callable[[str], Any]] = {
    "pool_size": int,
    "max_overflow": int,
    "pool_timeout": float,
    "schema": str,
    "driver": str,
}
_DRIVER_URL = "postgresql+psycopg2://"


class SQLAlchemyConnector(SyncConnector):
    """A synchronous connector over an SQLAlchemy engine, on psycopg2 or psycopg 3.

    ``app.open(engine)`` shares the application's engine and its pool, and never disposes of it.
    Without one, an engine of its own is made from ``dsn`` and ``create_engine``'s arguments.
    What ``dsn`` leaves out comes from libpq's environment (``PGHOST``, ...). In such an engine, a
    connection that cannot be made within 10 seconds is an error, and one whose peer does not
    acknowledge anything is given up after 15 to 25 seconds; ``connect_timeout``,
    ``keepalives_idle``, ``keepalives_interval``, ``keepalives_count`` and ``tcp_user_timeout`` in
    ``dsn`` or ``connect_args`` change that.

    Threads may share it. In a process forked off, its own engine starts with an empty pool; with
    an application's engine call ``engine.dispose(close=False)`` there, as SQLAlchemy asks for.

    Raises `InvalidOption` for an unknown argument or another dialect, and `ConfigurationError` for
    a malformed ``dsn`` or a driver that is not installed.
    """

    contract: ClassVar[int] = 2
    chooses_plans: ClassVar[bool] = True
    #: SQLAlchemy's names of the drivers that it takes.
    drivers: ClassVar[Sequence[str]] = drivers.ALL

    def __init__(
        self,
        *,
        dsn: str | URL = _DRIVER_URL,
        json_dumps: Callable[[Any], str] | None = None,
        json_loads: Callable[[str], Any] | None = None,
        schema: str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(json_dumps=json_dumps, json_loads=json_loads, schema=schema)
        if "url" in arguments:
            raise InvalidOption(f"{type(self).__name__} takes the URL of the database as dsn=")
        self._url = _read_url(dsn, self.drivers)
        over = drivers.driver_of(self._url.get_dialect())
        connect_args = arguments.pop("connect_args", None) or {}
        self._shown = _check_connect_arguments(self._url, connect_args, over)
        connect_args = {**_of_ours(self._url, connect_args), **over.connect_args}
        self._arguments = {**arguments, "connect_args": connect_args}
        self._new_engine()  # connects to nothing, and finds unknown arguments now
        self._lock = threading.Lock()
        self._source: Source | None = None
        forks.call_after_fork(self)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return a connector for ``sqlalchemy://user:password@host:port/database?option=value``.

        The options are libpq's, and ``driver`` (``psycopg2`` or ``psycopg``), ``pool_size``,
        ``max_overflow``, ``pool_timeout`` and ``schema``. Raises `ConfigurationError` for an URL
        that cannot be one.
        """
        dsn, options = split_url(url, _URL_OPTIONS)
        driver = options.pop("driver", None)
        if driver is not None:
            options["dsn"] = f"postgresql+{driver}://"
        # As libpq reads it: lists of hosts, which SQLAlchemy's URLs write in another way, too.
        return cls(connect_args=check_dsn(dsn), **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._shown}>"

    def _new_engine(self) -> Engine:
        try:
            return sqlalchemy.create_engine(self._url, **self._arguments)
        except (TypeError, sa_exc.ArgumentError) as exc:
            raise InvalidOption(f"create_engine() refused its arguments: {exc}") from exc

    def open(self, pool: Any = None) -> None:
        """Connect, or take the application's engine, which stays its own.

        Raises `ConnectionFailed` when no connection can be made, `InvalidOption` for an object
        that is not an engine on one of the drivers, or when the connector is open with another one.
        """
        with self._lock:
            source = self._source
            if source is None:
                self._source = self._own() if pool is None else self._borrowed(pool)
            elif pool is not None and (source.own or source.engine is not pool):
                raise InvalidOption("the connector is open already, with another engine: close it")

    def _own(self) -> Source:
        source = Source(self._new_engine(), own=True)
        try:
            engines.Lease(source.engine).close()
        except BaseException:
            source.close()
            raise
        return source

    def _borrowed(self, engine: Any) -> Source:
        engine = engines.checked_engine(engine, self.drivers)
        engines.check_connections(engine)
        return Source(engine, own=False)

    def close(self) -> None:
        """Dispose of the engine unless it was handed in. Twice is harmless."""
        with self._lock:
            source, self._source = self._source, None
        if source is not None:
            source.close()

    @property
    def engine(self) -> Engine:
        """The engine in use, the application's or the connector's own. Raises `AppNotOpen`."""
        return self._opened().engine

    def _opened(self) -> Source:
        source = self._source
        if source is None:
            raise AppNotOpen("the connector is not open: call app.open() first")
        return source

    def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AbstractContextManager[SessionExecutor]:
        """Return a block holding one connection; wait for it ``timeout`` seconds, if that is given.

        SQLAlchemy's pools cannot be told how long to wait: until then, the pool is looked at again
        and again. Raises `AppNotOpen` before `open`; entering it raises `ConnectionFailed` or
        `PoolTimeout` when no connection is to be had.
        """
        source = self._opened()
        return Session(source, transaction=transaction, read_only=read_only, timeout=timeout)

    def after_fork(self) -> None:
        """Leave the parent its sockets; its lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        source = self._source
        if source is None:
            return
        source.inherited = True
        forks.leave_to_parent(source, source.engine.pool)
        if source.own:
            source.engine.dispose(close=False)
        self._source = Source(source.engine, own=source.own)


class SQLAlchemyPsycopg2Connector(SQLAlchemyConnector):
    """A `SQLAlchemyConnector` for engines on psycopg2 only."""

    drivers: ClassVar[Sequence[str]] = ("psycopg2",)


def _read_url(dsn: str | URL, names: Sequence[str]) -> URL:
    """Return the URL that create_engine() would read. No message shows it, for its password."""
    if isinstance(dsn, str):
        check_url(dsn)
    try:
        url = make_url(dsn)
        dialect = url.get_dialect()
    except (sa_exc.ArgumentError, TypeError, ValueError):
        url = None
    if url is None:
        raise ConfigurationError(
            f"dsn is not an SQLAlchemy URL like {_DRIVER_URL}user:password@host:port/database "
            "(several hosts: ?host=one:5432&host=two:5432)"
        )
    drivers.check_dialect(dialect, "dsn", names)
    return url


def _check_connect_arguments(url: URL, connect_args: dict[str, Any], over: Driver) -> str:
    """Return what may be shown of the connection's arguments."""
    arguments, options = url.get_dialect()().create_connect_args(url)
    options = {k: v for k, v in {**options, **connect_args}.items() if k not in over.not_libpqs}
    if "conninfo" in options:  # psycopg's name for it
        arguments = [options.pop("conninfo")]
    read = check_dsn(*arguments, **options)
    check_host(read.get("host") or "")
    return shown(read)


def _of_ours(url: URL, connect_args: dict[str, Any]) -> dict[str, Any]:
    """Return ``connect_args`` with what a connection of ours needs and the URL does not say."""
    _, of_url = url.get_dialect()().create_connect_args(url)
    ours = for_our_own({**of_url, **connect_args})
    return {name: value for name, value in ours.items() if of_url.get(name) != value}
