"""The asynchronous connector: coroutines and workers, over psycopg 3."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, cast

from procrastinate.connector import AsyncSessionExecutor, ListeningConnector, Notification
from procrastinate.connector_tools import urls
from procrastinate.connector_tools.loops import Opened
from procrastinate.connector_tools.plans import Permission
from procrastinate.connector_tools.pools import AsyncPool
from procrastinate.connector_tools.sessions import AsyncSession
from procrastinate.connector_tools.sizes import check_room_for_worker
from procrastinate_psycopg import driver
from procrastinate_psycopg.connecting import behind_pooler, connect_async
from procrastinate_psycopg.leases import AsyncLease
from procrastinate_psycopg.listening import Listener, Listeners
from procrastinate_psycopg.options import URL_OPTIONS, Options, read_conninfo, read_options
from procrastinate_psycopg.sync_connector import SyncPsycopgConnector

if TYPE_CHECKING:
    from procrastinate_psycopg.borrowed import AsyncBorrowed


class PsycopgConnector(ListeningConnector):
    """An asynchronous connector over psycopg 3.

    ``min_size`` connections are made when it is opened and up to ``max_size`` when they are needed;
    with all of them in use, a coroutine waits up to ``pool_timeout`` seconds (None: for ever) and
    then gets `PoolTimeout`. ``conninfo`` is a connection string or URL, ``listen_conninfo`` another
    one for a direct connection to LISTEN on, if others go through a pooler. All other arguments are
    libpq's: ``host``, ``port``, ``user``, ``password``, ``dbname``, ``options``, ``sslmode`` and so
    on; those that are absent come from libpq's environment (``PGHOST``, ...). A host that does not
    answer within 10 seconds is passed over, and a connection whose peer does not acknowledge
    anything is given up after 15 to 25 seconds; ``connect_timeout``, ``keepalives_idle``,
    ``keepalives_interval``, ``keepalives_count`` and ``tcp_user_timeout`` change that.

    It belongs to the event loop in which it was opened, until it is closed or that loop has ended.

    Raises `InvalidOption` for an unknown or impossible argument and `ConfigurationError` for a
    malformed connection string.
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
        listen_conninfo: str | None = None,
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
        self._listen: Mapping[str, Any] | None = None
        if listen_conninfo is not None:
            self._listen = read_conninfo(listen_conninfo, "listen_conninfo")
        self._listeners = listeners = Listeners()

        def leave(source: AsyncPool[AsyncLease] | AsyncBorrowed) -> None:
            source.close()
            listeners.close()

        self._opened = Opened(leave)

    @classmethod
    def from_url(cls, url: str) -> PsycopgConnector:
        """Return a connector for ``psycopg://user:password@host:port/database?option=value``.

        The options are libpq's, and ``min_size``, ``max_size``, ``pool_timeout``, ``schema`` and
        ``listen_conninfo``. Raises `ConfigurationError` for an URL that cannot be one.
        """
        conninfo, options = urls.split_url(url, {**URL_OPTIONS, "listen_conninfo": str})
        return cls(conninfo=conninfo, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._options.shown}>"

    # Opening and closing

    async def open_async(self, pool: Any = None) -> None:
        """Connect, or take the application's ``psycopg_pool.AsyncConnectionPool``.

        That stays the application's. Raises `ConnectionFailed` if no connection can be made,
        `InvalidOption` for an object that is no open pool of this event loop, or if the connector
        is open with another one, and `ConfigurationError` if it is open in another event loop.
        """
        if self._opened.is_already(pool, "pool"):
            return
        if pool is None:
            own = self._own_pool()
            await self._opened.begin(own, own.fill())
        else:
            from procrastinate_psycopg.borrowed import AsyncBorrowed, checked_pool  # psycopg_pool

            borrowed = AsyncBorrowed(checked_pool(pool), timeout=self._options.pool_timeout)
            await self._opened.begin(borrowed, borrowed.look(), pool)

    def _own_pool(self) -> AsyncPool[AsyncLease]:
        options, permission = self._options, Permission(behind_pooler)
        return AsyncPool(
            lambda: connect_async(options.parameters, permission),
            close=AsyncLease.close,
            is_good=_is_good,
            minimum=options.min_size,
            maximum=options.max_size,
            timeout=options.pool_timeout,
        )

    async def close_async(self) -> None:
        """Close the pool unless it was handed in, at once, also connections in use."""
        borrowed = self._borrowed
        if (source := self._opened.end()) is not None:
            source.close()
        self._listeners.close()
        if borrowed is not None:
            await borrowed.all_returned()

    @property
    def _borrowed(self) -> AsyncBorrowed | None:
        opened = self._opened
        return None if opened.given is None else cast("AsyncBorrowed", opened.source)

    # Running queries

    def session_async(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncSessionExecutor]:
        """Return a block holding one connection.

        Raises `AppNotOpen` before `open_async` and `ConfigurationError` in another event loop;
        entering it raises `ConnectionFailed` or `PoolTimeout` if no connection is to be had. A
        cancelled task gets its cancellation when the query under way has ended. If that lasts for
        more than 5 seconds, the connection is closed; the server may still finish the query.
        """
        source = self._opened.here()
        return AsyncSession(source, transaction=transaction, read_only=read_only, timeout=timeout)

    def listen(
        self, channels: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[Notification]]:
        """Return a block that LISTENs on a connection of its own.

        That is a new one, to ``listen_conninfo`` if that is given; or one of the connections of a
        pool that was handed in, which gets it back. Entering it raises `ConnectionFailed` or
        `PoolTimeout`, the iterator `ConnectionLost`.
        """
        self._opened.here()
        borrowed = self._borrowed
        if borrowed is not None and self._listen is None:
            block = Listener(channels, borrowed.acquire, borrowed.release_from_listening)
        else:
            parameters = self._options.parameters if self._listen is None else self._listen
            block = self._listeners.listener(channels, parameters)
        return cast(AbstractAsyncContextManager[AsyncIterator[Notification]], block)

    def check_for_worker(self) -> None:
        """Raise `ConfigurationError` if a pool that was handed in cannot serve a worker.

        It is too small, or does not say where the worker's companions may connect to.
        """
        super().check_for_worker()
        if (pool := self._opened.given) is not None:
            check_room_for_worker(
                pool.max_size,
                "the psycopg pool given to open_async()",
                option="max_size",
                listens=self._listen is None,
            )

    # Synchronous calls

    def sync_connector(self, *, connect_timeout: float | None = None) -> SyncPsycopgConnector:
        """Return a new, unopened `SyncPsycopgConnector` to the same database.

        Raises `ConfigurationError` for a pool handed in that does not say where it connects to,
        unless this connector's own arguments do.
        """
        return SyncPsycopgConnector(
            json_dumps=self.json_dumps,
            json_loads=self.json_loads,
            schema=self.schema,
            **self._where_to().for_one_user(connect_timeout),
        )

    def sibling(
        self, *, max_connections: int, connect_timeout: float | None = None
    ) -> PsycopgConnector:
        """Return a new, unopened connector to the same database, for another event loop.

        Raises `ConfigurationError` as `sync_connector` does.
        """
        sizes = {"min_size": 0, "max_size": max_connections}
        connector = type(self)(
            json_dumps=self.json_dumps,
            json_loads=self.json_loads,
            schema=self.schema,
            **{**self._where_to().for_one_user(connect_timeout), **sizes},
        )
        connector._listen = self._listen
        return connector

    def _where_to(self) -> Options:
        """Return the options of a connector with connections of its own."""
        options = self._options
        if self._opened.given is not None and not options.parameters:
            from procrastinate_psycopg.borrowed import arguments_of

            arguments = arguments_of(self._opened.given)
            conninfo = arguments.pop("conninfo")
            return read_options(
                conninfo,
                min_size=options.min_size,
                max_size=options.max_size,
                pool_timeout=options.pool_timeout,
                arguments=arguments,
            )
        return options


def _is_good(lease: AsyncLease) -> bool:
    return driver.looks_alive(lease.pgconn)
