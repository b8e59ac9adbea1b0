"""The asynchronous connector: coroutines and workers, over aiopg."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, cast

import aiopg

from procrastinate.connector import (
    AsyncSessionExecutor,
    ListeningConnector,
    Notification,
)
from procrastinate.connector_tools.loops import Opened
from procrastinate.connector_tools.sessions import AsyncSession
from procrastinate.connector_tools.sizes import check_room_for_worker
from procrastinate.connector_tools.urls import split_url
from procrastinate.errors import InvalidOption
from procrastinate_aiopg.connecting import ConnectOptions, connect
from procrastinate_aiopg.held import close_quietly
from procrastinate_aiopg.listening import Listener
from procrastinate_aiopg.options import URL_OPTIONS, read_options, sibling_options, sync_arguments
from procrastinate_aiopg.pools import THEIRS, GivenPool, OwnPool, Source
from procrastinate_psycopg2 import Psycopg2Connector


class AiopgConnector(ListeningConnector):
    """An asynchronous connector over aiopg.

    ``minsize`` connections are made when it is opened and up to ``maxsize`` (0: no limit) when
    they are needed; with all of them in use, a coroutine waits up to ``pool_timeout`` seconds
    (None: for ever) and then gets `PoolTimeout`. ``timeout`` is the time to connect in seconds; an
    idle connection is replaced after ``pool_recycle`` seconds (-1: never). ``on_connect`` is
    awaited with each new connection. ``listen_dsn`` names a direct connection to LISTEN on, where
    others go through a pooler. ``enable_json``, ``enable_hstore``, ``enable_uuid`` and ``echo``
    are aiopg's, all False by default. All other arguments go to ``psycopg2.connect``: ``dsn``,
    ``host``, ``port``, ``user``, ``password``, ``dbname``, ``options``, ``cursor_factory`` and
    whatever libpq knows; those that are absent come from libpq's environment (``PGHOST``, ...). A
    connection whose peer does not acknowledge anything is given up after 15 to 25 seconds;
    ``keepalives_idle``, ``keepalives_interval``, ``keepalives_count`` and ``tcp_user_timeout``
    change that.

    It belongs to the event loop in which it was opened, until it is closed or that loop has ended.

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
        listen_dsn: str | None = None,
        pool_timeout: float | None = 30.0,
        minsize: int = 1,
        maxsize: int = 10,
        timeout: float = 10.0,
        pool_recycle: float = -1.0,
        on_connect: Callable[[aiopg.Connection], Awaitable[Any]] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(json_dumps=json_dumps, json_loads=json_loads, schema=schema)
        self._options = read_options(
            minsize=minsize,
            maxsize=maxsize,
            timeout=timeout,
            pool_recycle=pool_recycle,
            pool_timeout=pool_timeout,
            on_connect=on_connect,
            listen_dsn=listen_dsn,
            arguments=arguments,
        )
        self._opened: Opened[Source] = Opened(leave=lambda source: source.close())

    @classmethod
    def from_url(cls, url: str) -> AiopgConnector:
        """Return a connector for ``aiopg://user:password@host:port/database?option=value``.

        The options are libpq's, and ``minsize``, ``maxsize``, ``timeout``, ``pool_recycle``,
        ``pool_timeout``, ``schema`` and ``listen_dsn``. Raises `ConfigurationError` for an URL
        that cannot be one.
        """
        dsn, options = split_url(url, URL_OPTIONS)
        return cls(dsn=dsn, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._options.shown}>"

    # Opening and closing

    async def open_async(self, pool: Any = None) -> None:
        """Connect, or take the application's ``aiopg.Pool``, which stays its own.

        Raises `ConnectionFailed` when no connection can be made, `InvalidOption` for an object
        that is no open pool of this event loop, or when the connector is open with another one,
        and `ConfigurationError` when it is open in another event loop.
        """
        if self._opened.is_already(pool, "pool"):
            return
        if pool is None:
            own = self._own_pool()
            await self._opened.begin(own, own.fill())
        else:
            given = GivenPool(_checked(pool), timeout=self._options.pool_timeout)
            await self._opened.begin(given, given.check(), pool)

    def _own_pool(self) -> OwnPool:
        options = self._options
        return OwnPool(
            lambda: connect(options.connect),
            minsize=options.minsize,
            maxsize=options.maxsize,
            recycle=options.recycle,
            timeout=options.pool_timeout,
        )

    async def close_async(self) -> None:
        """Close the pool unless it was handed in, at once, also connections in use."""
        if (source := self._opened.end()) is not None:
            source.close()

    # Running queries

    def session_async(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncSessionExecutor]:
        """Return a block holding one connection; wait for it ``timeout`` seconds, if that is given.

        Raises `AppNotOpen` before `open_async` and `ConfigurationError` in another event loop;
        entering it raises `ConnectionFailed` or `PoolTimeout` when no connection is to be had. A
        cancelled task gets its cancellation when the query under way has ended. If that lasts for
        more than 5 seconds, the connection is closed; the server may still finish the query.
        """
        return AsyncSession(
            self._opened.here(), transaction=transaction, read_only=read_only, timeout=timeout
        )

    def listen(
        self, channels: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[Notification]]:
        """Return a block that LISTENs on a connection of its own.

        That is a new one, to ``listen_dsn`` where one is given; or, of a pool that was handed in,
        one of its connections, closed afterwards. Entering it raises `ConnectionFailed` or
        `PoolTimeout`, the iterator `ConnectionLost`.
        """
        source = self._opened.here()
        listen = self._options.listen
        if listen is None:
            block = Listener(channels, source.acquire_for_listening, source.release_from_listening)
        else:
            block = Listener(channels, _connecting(listen), close_quietly)
        return cast(AbstractAsyncContextManager[AsyncIterator[Notification]], block)

    def check_for_worker(self) -> None:
        """Raise `ConfigurationError` for a pool that a worker cannot run on.

        It is too small, or does not say where it connects to.
        """
        super().check_for_worker()
        if (pool := self._opened.given) is not None:
            size = pool.maxsize or None  # 0 is no limit
            listens = self._options.listen is None
            check_room_for_worker(size, THEIRS, option="maxsize", listens=listens)

    # Synchronous calls

    def sync_connector(self, *, connect_timeout: float | None = None) -> Psycopg2Connector:
        """Return a new, unopened `Psycopg2Connector` to the same database.

        Raises `ConfigurationError` for a pool handed in that does not say where it connects to.
        """
        return Psycopg2Connector(
            json_dumps=self.json_dumps,
            json_loads=self.json_loads,
            schema=self.schema,
            **sync_arguments(self._options, self._opened.given, connect_timeout),
        )

    def sibling(
        self, *, max_connections: int, connect_timeout: float | None = None
    ) -> AiopgConnector:
        """Return a new, unopened connector to the same database, for another event loop.

        Raises `ConfigurationError` as `sync_connector` does.
        """
        connector = type(self)(
            json_dumps=self.json_dumps, json_loads=self.json_loads, schema=self.schema
        )
        connector._options = sibling_options(
            self._options, self._opened.given, max_connections, connect_timeout
        )
        return connector


def _connecting(options: ConnectOptions) -> Callable[[], Awaitable[aiopg.Connection]]:
    return lambda: connect(options)


def _checked(pool: Any) -> aiopg.Pool:
    if not isinstance(pool, aiopg.Pool):
        raise InvalidOption(
            f"open_async() takes an aiopg.Pool (`await aiopg.create_pool(...)`), not"
            f" {type(pool).__module__}.{type(pool).__qualname__}"
        )
    if pool.closed or getattr(pool, "_closing", False):
        raise InvalidOption("the aiopg pool given to open_async() is closed")
    loop = getattr(pool, "_loop", None)
    if loop is not None and loop is not asyncio.get_running_loop():
        raise InvalidOption(
            "the aiopg pool given to open_async() was made in another event loop: make it in this"
            " one"
        )
    return pool
