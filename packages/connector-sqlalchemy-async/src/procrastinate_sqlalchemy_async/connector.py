"""The connector for applications on SQLAlchemy's AsyncEngine: coroutines and workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, ClassVar, cast
from urllib.parse import parse_qsl, quote, urlencode

from sqlalchemy import event
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from procrastinate.connector import AsyncSessionExecutor, ListeningConnector, Notification
from procrastinate.connector_tools import forks, limits, urls
from procrastinate.connector_tools.loops import Opened
from procrastinate.connector_tools.sizes import check_room_for_worker
from procrastinate.errors import ConfigurationError, ConnectorException, InvalidOption
from procrastinate_sqlalchemy_async import drivers, engines
from procrastinate_sqlalchemy_async.arguments import read_arguments
from procrastinate_sqlalchemy_async.engines import Source
from procrastinate_sqlalchemy_async.listening import Listener
from procrastinate_sqlalchemy_async.sessions import Session

_URL_OPTIONS: dict[str, Callable[[str], Any]] = {
    "pool_size": int,
    "max_overflow": int,
    "pool_timeout": float,
    "schema": str,
    "listen_dsn": str,
    "driver": str,
}
_OF_LIBPQ_ONLY = ("keepalives", *(name for name in limits.LIMITS if name != "connect_timeout"))


class SQLAlchemyAsyncConnector(ListeningConnector):
    """An asynchronous connector over an SQLAlchemy ``AsyncEngine`` on asyncpg or psycopg 3.

    ``app.open_async(engine)`` shares the application's engine and its pool, and never disposes of
    it. Without one, an engine of its own is made from ``url`` (an SQLAlchemy URL like
    ``postgresql+asyncpg://user:password@host/database``) and ``create_async_engine``'s arguments;
    without ``url`` the driver is the one that is installed, and the database that of the
    environment (``PGHOST``, ...). In such an engine, a connection that cannot be made within 10
    seconds is an error, and one whose peer does not acknowledge anything is given up after 15 to 25
    seconds. ``listen_dsn`` names a direct connection to LISTEN on, if others go through a pooler:
    an SQLAlchemy URL, or a URL of libpq's (``postgresql://``).

    It belongs to the event loop in which it was opened, until it is closed or that loop has ended.
    Plain calls run on an event loop in a thread, on up to two connections of their own.

    Raises `InvalidOption` for an unknown argument or another dialect, and `ConfigurationError` for
    a malformed ``url`` or if no driver is installed.
    """

    contract: ClassVar[int] = 2

    def __init__(
        self,
        *,
        url: str | URL | None = None,
        json_dumps: Callable[[Any], str] | None = None,
        json_loads: Callable[[str], Any] | None = None,
        schema: str | None = None,
        listen_dsn: str | URL | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(json_dumps=json_dumps, json_loads=json_loads, schema=schema)
        if "dsn" in arguments:
            raise InvalidOption(f"{type(self).__name__} takes the URL of the database as url=")
        given = arguments.get("connect_args") or {}
        self._names_a_database = url is not None or bool(given)
        read = _read_url(drivers.default_url() if url is None else url, "url")
        self._url, given = read_arguments(read, given)
        self._given_listen_dsn = listen_dsn
        self._listen = None if listen_dsn is None else _read_listen_dsn(listen_dsn, self._url)
        self._arguments = {**arguments, "connect_args": given}
        # Connects to nothing, and finds mistakes now.
        engines.check_pool(self._new_engine(self._url, self._arguments), "this connector's engine")
        self._shown = _shown(self._url, given)
        self._opened: Opened[Source] = Opened(leave=Source.close)
        forks.call_after_fork(self)

    @classmethod
    def from_url(cls, url: str) -> SQLAlchemyAsyncConnector:
        """Return a connector for ``sqlalchemy-async://user:password@host/database?option=value``.

        The options are libpq's, and ``driver`` (``asyncpg`` or ``psycopg``), ``pool_size``,
        ``max_overflow``, ``pool_timeout``, ``schema`` and ``listen_dsn``. Raises
        `ConfigurationError` for a URL that cannot be one.
        """
        dsn, options = urls.split_url(url, _URL_OPTIONS)
        urls.read_url(dsn)  # refuses what cannot be one
        driver = options.pop("driver", None)
        name = f"postgresql+{driver}://" if driver else drivers.default_url()
        connect_args = _connect_args(make_url(name).get_driver_name(), dsn)
        return cls(url=name, connect_args=connect_args, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._shown}>"

    def _new_engine(
        self,
        url: URL,
        arguments: Mapping[str, Any],
        *,
        connect_timeout: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> AsyncEngine:
        connect_args = dict(arguments.get("connect_args") or {})
        of_url = url.get_dialect()().create_connect_args(url)[1]
        ours = drivers.own_arguments(
            url.get_driver_name(),
            {**of_url, **connect_args},
            limits.missing({**of_url, **connect_args}, connect_timeout=connect_timeout),
        )
        connect_args = {**ours, **connect_args, **(more or {})}
        try:
            return create_async_engine(url, **{**arguments, "connect_args": connect_args})
        except (TypeError, sa_exc.ArgumentError) as exc:
            raise InvalidOption(f"create_async_engine() refused its arguments: {exc}") from exc
        except ImportError:
            drivers.load(url.get_driver_name())
            raise

    # Opening and closing

    async def open_async(self, pool: Any = None) -> None:
        """Connect, or take the application's engine, which stays its own.

        Raises `ConnectionFailed` when no connection can be made, `InvalidOption` for an object that
        is no AsyncEngine on asyncpg or psycopg 3, or when the connector is open with another one,
        and `ConfigurationError` when it is open in another event loop.
        """
        if self._opened.is_already(pool, "engine"):
            return
        if pool is None:
            # A pool made by the application connects in its own way.
            beside = None if self._arguments.get("pool") is not None else self._own_beside
            own = Source(self._first_engine(), own=True, shown=self._shown, beside=beside)
            await self._opened.begin(own, self._look(own))
        else:
            borrowed = Source(engines.checked_engine(pool), own=False)
            await self._opened.begin(borrowed, _look_at(borrowed), pool)

    def _first_engine(self) -> AsyncEngine:
        """Make our own engine. Nothing is prepared by a name before we know that it may be.

        Behind a pooler, a name may be another client's on the server's connection, which SQLAlchemy
        and asyncpg would take for their own from the first statement on.
        """
        more = _PREPARES_NOTHING if self._url.get_driver_name() == "asyncpg" else None
        return self._new_engine(self._url, self._arguments, more=more)

    def _own_beside(self) -> AsyncEngine:
        """Make an engine without a pool, for a connection of ours to LISTEN on."""
        engine = self._new_engine_beside(self._url, self._arguments)
        if (source := self._opened.source) is not None:
            _watch_connects(source, engine)
        return engine

    def _new_engine_beside(self, url: URL, arguments: Mapping[str, Any]) -> AsyncEngine:
        """Make an engine without a pool. It prepares nothing: it may be behind a pooler."""
        more = _PREPARES_NOTHING if url.get_driver_name() == "asyncpg" else None
        kept = {name: value for name, value in arguments.items() if name not in _OF_POOLS}
        return self._new_engine(url, {**kept, "poolclass": NullPool}, more=more)

    async def _look(self, own: Source) -> None:
        """Find out where our own engine leads to, and have one that prepares if it may."""
        try:
            _watch_connects(own, own.engine)
            await own.look()
            if own.direct and own.driver.name == "asyncpg":
                await own.dispose()
                own.engine = self._new_engine(self._url, self._arguments)
                _watch_connects(own, own.engine)
                await own.look()
        except BaseException:
            await own.dispose()
            raise

    async def close_async(self) -> None:
        """Dispose of the engine unless it was handed in. Twice is harmless."""
        if (source := self._opened.end()) is not None:
            await source.dispose()

    def after_fork(self) -> None:
        """Leave the parent its connections. Runs in a forked child."""
        if (source := self._opened.forget()) is not None:
            source.leave_to_parent()

    # Running queries

    def session_async(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncSessionExecutor]:
        """Return a block holding one connection.

        Raises `AppNotOpen` before `open_async` and `ConfigurationError` in another event loop;
        entering it raises `ConnectionFailed` or `PoolTimeout` when no connection is to be had. A
        cancelled task gets its cancellation when the query under way has ended. If that lasts for
        more than 5 seconds, the connection is closed; the server may still finish the query.
        """
        return Session(
            self._opened.here(), transaction=transaction, read_only=read_only, timeout=timeout
        )

    def listen(
        self, channels: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[Notification]]:
        """Return a block that LISTENs on a connection of its own.

        That is a new one, to ``listen_dsn`` if that is given, and beside the pool of an engine of
        our own; else one of the engine's. It is closed afterwards. Entering it raises
        `ConnectionFailed` or `PoolTimeout`, the iterator `ConnectionLost`.
        """
        source = self._opened.here()
        if self._listen is not None:
            url, connect_args = self._listen
            engine = self._new_engine_beside(url, {"connect_args": connect_args})
            source = Source(engine, own=True, shown=_shown(url, connect_args))
        block = Listener(source, channels)
        return cast(AbstractAsyncContextManager[AsyncIterator[Notification]], block)

    # Plain calls, and a worker's companions

    def check_for_worker(self) -> None:
        """Raise `ConfigurationError` if a worker cannot run on the engine handed in.

        That is if its pool has fewer than three connections, or if neither the connector's
        arguments nor the engine's URL say which database it leads to. A pool of an engine of our
        own may be as small as it likes, unless it was made by the application (``pool=``).
        """
        source = self._opened.here()
        if self._opened.given is not None or self._arguments.get("pool") is not None:
            check_room_for_worker(
                engines.capacity(source.engine),
                "the connector's pool=" if source.own else "the engine given to open_async()",
                option="pool_size and max_overflow",
                listens=self._listen is None,
            )
        self._where_to()

    def sibling(
        self, *, max_connections: int, connect_timeout: float | None = None
    ) -> SQLAlchemyAsyncConnector:
        """Return a new, unopened connector to the same database.

        Raises `ConfigurationError` for an engine handed in that does not say where it leads to.
        """
        url, arguments = self._where_to()
        unwanted = (*_WHICH_POOL, "echo", "echo_pool")
        arguments = {k: v for k, v in arguments.items() if k not in unwanted}
        arguments |= {"pool_size": max_connections, "max_overflow": 0}
        if connect_timeout is not None:
            arguments["connect_args"] = _with_timeout(url, arguments, connect_timeout)
        return type(self)(
            url=url,
            json_dumps=self.json_dumps,
            json_loads=self.json_loads,
            schema=self.schema,
            listen_dsn=self._given_listen_dsn,
            **arguments,
        )

    def _where_to(self) -> tuple[URL, dict[str, Any]]:
        engine = self._opened.given
        if engine is None or self._names_a_database:
            return self._url, dict(self._arguments)
        url = engine.url
        if not (url.host or url.database or url.query):
            raise ConfigurationError(
                "the engine given to open_async() does not say which database it leads to (its URL"
                f" is {url.render_as_string()}): give the connector the same arguments too, as in"
                " SQLAlchemyAsyncConnector(url=..., connect_args=...)"
            )
        return url, {}


#: create_async_engine()'s arguments that say which pool.
_WHICH_POOL = ("pool", "poolclass", "pool_size", "max_overflow")
_OF_POOLS = (*_WHICH_POOL, "pool_timeout", "pool_use_lifo")
#: For asyncpg: neither it nor SQLAlchemy gives a statement a name.
_PREPARES_NOTHING = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


def _with_timeout(url: URL, arguments: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return connect_args with a time to connect, unless the user gave another one."""
    given = dict(arguments.get("connect_args") or {})
    name = "timeout" if url.get_driver_name() == "asyncpg" else "connect_timeout"
    wanted = limits.missing({**url.query, **given}, connect_timeout=seconds).get("connect_timeout")
    if wanted is not None and name not in given:
        given[name] = float(wanted) if name == "timeout" else wanted
    return given


async def _look_at(borrowed: Source) -> None:
    with suppress(ConnectorException):  # the first session will tell
        await borrowed.look()


def _watch_connects(source: Source, engine: AsyncEngine) -> None:
    def connected(adapter: Any, record: Any) -> None:
        raw = adapter.driver_connection
        source.made(raw)
        if source.driver.name == "asyncpg":
            fileno = source.driver(raw, own=True, direct=False).fileno
            if fileno >= 0:
                engines.set_keepalive(fileno)

    event.listen(engine.sync_engine, "connect", connected)


def _read_url(url: str | URL, option: str) -> URL:
    """Return the URL that create_async_engine() would read. No message shows it."""
    if isinstance(url, str):
        urls.check_url(url)
    try:
        read = make_url(url)
        dialect = read.get_dialect(_is_async=True)
    except (sa_exc.ArgumentError, TypeError, ValueError):
        dialect = None
    if dialect is None:
        raise ConfigurationError(
            f"{option} is not an SQLAlchemy URL like"
            " postgresql+asyncpg://user:password@host:port/database"
        )
    drivers.driver_of(dialect, option)
    return read


def _read_listen_dsn(dsn: Any, url: URL) -> tuple[URL, dict[str, Any]]:
    """Return an SQLAlchemy URL and the driver's arguments for a connection to LISTEN on."""
    if isinstance(dsn, str) and not dsn.startswith("postgresql+"):
        name = url.get_driver_name()
        if name == "psycopg" or dsn.startswith(("postgresql://", "postgres://")):
            return make_url(f"postgresql+{name}://"), _connect_args(name, dsn)
    return read_arguments(_read_url(dsn, "listen_dsn"), {})


def _connect_args(driver: str, dsn: str) -> dict[str, Any]:
    """Return connect_args for a libpq URL; over psycopg, any connection string."""
    if driver == "psycopg":
        return _read_by_libpq(dsn)
    urls.read_url(dsn)  # refuses what cannot be one
    base, _, query = urls.quoted_url(dsn).partition("?")
    kept, arguments = [], {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "connect_timeout":
            arguments["timeout"] = _seconds(value)
        elif name not in (*_OF_LIBPQ_ONLY, "client_encoding"):
            kept.append((name, value))
    options = urlencode(kept, quote_via=quote)
    return {"dsn": f"{base}?{options}" if options else base, **arguments}


def _read_by_libpq(dsn: str) -> dict[str, Any]:
    drivers.load("psycopg")  # says what to install
    import psycopg

    urls.check_at_signs(dsn)
    try:
        read = dict(psycopg.conninfo.conninfo_to_dict(dsn))
    except (psycopg.Error, ValueError) as exc:
        error = urls.malformed(exc)
    else:
        urls.check_ports(str(read.get("port") or ""))
        return read
    raise error  # outside of the handler: no context that quotes it


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    raise ConfigurationError("connect_timeout in the URL is not a number of seconds")


def _shown(url: URL, connect_args: Mapping[str, Any]) -> str:
    """Return what may be shown of where a URL and the driver's arguments lead to."""
    dsn = connect_args.get("dsn") or connect_args.get("conninfo")
    read: dict[str, Any] = {}
    if isinstance(dsn, str) and "://" in dsn:
        with suppress(ConfigurationError):
            read = dict(urls.read_url(dsn))
    of_url = {"host": url.host, "port": url.port, "dbname": url.database, "user": url.username}
    read |= {name: value for name, value in of_url.items() if value is not None}
    for name in ("host", "port", "user", "dbname"):
        if connect_args.get(name):
            read[name] = connect_args[name]
    if connect_args.get("database"):
        read["dbname"] = connect_args["database"]
    return f"{url.get_driver_name()} {urls.shown(read)}"
