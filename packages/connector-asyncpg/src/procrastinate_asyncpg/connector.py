"""The asynchronous connector: coroutines and workers, over asyncpg."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, cast

from procrastinate.connector import AsyncSessionExecutor, ListeningConnector, Notification
from procrastinate.connector_tools.loops import Opened
from procrastinate.connector_tools.sessions import AsyncSession
from procrastinate.connector_tools.sizes import check_room_for_worker
from procrastinate.connector_tools.urls import split_url
from procrastinate.errors import ConfigurationError
from procrastinate_asyncpg.connecting import ConnectOptions, connect
from procrastinate_asyncpg.failures import terminate
from procrastinate_asyncpg.kinds import Connection
from procrastinate_asyncpg.listening import Listener
from procrastinate_asyncpg.options import URL_OPTIONS, Options, read_options
from procrastinate_asyncpg.pools import THEIRS, GivenPool, OwnPool, Source, checked_pool


class AsyncpgConnector(ListeningConnector):
    """An asynchronous connector over asyncpg.

    ``min_size`` connections are made when it is opened and up to ``max_size`` when they are needed;
    with all of them in use, a coroutine waits up to ``pool_timeout`` seconds (None: for ever) and
    then gets `PoolTimeout`. ``listen_dsn`` is the URL of a direct connection to LISTEN on, where
    others go through a pooler. All other arguments go to ``asyncpg.connect``: ``dsn``, ``host``,
    ``port``, ``user``, ``password``, ``database``, ``ssl``, ``server_settings`` and so on; those
    that are absent come from libpq's environment (``PGHOST``, ...). ``timeout`` is the time to
    connect in seconds, 10 by default. A connection whose peer does not acknowledge anything is
    given up after 15 to 25 seconds; ``keepalives_idle``, ``keepalives_interval``,
    ``keepalives_count`` and ``tcp_user_timeout`` in the URL change that.

    It belongs to the event loop in which it was opened, until it is closed or that loop has ended.
    Plain calls are served by connections of their own, at most two.

    Raises `InvalidOption` for an unknown or impossible argument and `ConfigurationError` for a
    malformed ``dsn``.
    """

    contract: ClassVar[int] = 2

    def __init__(
        self,
        *,
        dsn: str | None = None,
        json_dumps: Callable[[Any], str] | None = None,
        json_loads: Callable[[str], Any] | None = None,
        schema: str | None = None,
        listen_dsn: str | None = None,
        min_size: int = 1,
        max_size: int = 10,
        pool_timeout: float | None = 30.0,
        **arguments: Any,
    ) -> None:
        super().__init__(json_dumps=json_dumps, json_loads=json_loads, schema=schema)
        self._options = read_options(
            dsn=dsn,
            listen_dsn=listen_dsn,
            min_size=min_size,
            max_size=max_size,
            pool_timeout=pool_timeout,
            arguments=arguments,
        )
        self._opened: Opened[Source] = Opened(leave=_left)

    @classmethod
    def from_url(cls, url: str) -> AsyncpgConnector:
        """Return a connector for ``asyncpg://user:password@host:port/database?option=value``.

        The options are asyncpg's, libpq's limits of the socket, and ``min_size``, ``max_size``,
        ``pool_timeout``, ``schema`` and ``listen_dsn``. Raises `ConfigurationError` for an URL
        that cannot be one.
        """
        dsn, options = split_url(url, URL_OPTIONS)
        return cls(dsn=dsn, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._options.connect.shown}>"

    # Opening and closing

    async def open_async(self, pool: Any = None) -> None:
        """Connect, or take the application's ``asyncpg.Pool``, which stays its own.

        Raises `ConnectionFailed` when no connection can be made, `InvalidOption` for an object
        that is no open pool of this event loop, or when the connector is open with another one,
        and `ConfigurationError` when it is open in another event loop.
        """
        if self._opened.is_already(pool, "pool"):
            return
        if pool is None:
            own = OwnPool(self._options)
            await self._opened.begin(own, own.fill())
        else:
            given = GivenPool(checked_pool(pool), timeout=self._options.pool_timeout)
            await self._opened.begin(given, given.check(), pool)

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
            block = Listener(channels, _connecting(listen), _terminated)
        return cast(AbstractAsyncContextManager[AsyncIterator[Notification]], block)

    # Beside it

    def check_for_worker(self) -> None:
        """Raise `ConfigurationError` for a pool that a worker cannot run on."""
        super().check_for_worker()
        if (pool := self._opened.given) is not None:
            check_room_for_worker(
                pool.get_max_size(), THEIRS, option="max_size", listens=self._options.listen is None
            )

    def sibling(
        self, *, max_connections: int, connect_timeout: float | None = None
    ) -> AsyncpgConnector:
        """Return a new, unopened connector to the same database, for another event loop.

        Raises `ConfigurationError` if only a pool handed in knows which database that is.
        """
        if self._opened.given is not None and not self._options.names_a_database:
            raise ConfigurationError(
                "the asyncpg pool given to open_async() does not say which database it connects to:"
                " give AsyncpgConnector the same dsn=, for plain calls and for a worker's heartbeat"
            )
        return self._with(self._options.for_sibling(max_connections, connect_timeout))

    def _with(self, options: Options) -> AsyncpgConnector:
        connector = type(self)(
            json_dumps=self.json_dumps, json_loads=self.json_loads, schema=self.schema
        )
        connector._options = options
        return connector


def _left(source: Source) -> None:
    """Leave the connections of an event loop that has ended: they have ended with it."""


def _connecting(options: ConnectOptions) -> Callable[[], Any]:
    return lambda: connect(options)


async def _terminated(connection: Connection) -> None:
    terminate(connection)
