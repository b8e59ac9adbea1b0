"""Both connectors pass the public test kit."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import psycopg_pool
from psycopg.rows import dict_row, namedtuple_row

from procrastinate_connector_testkit import (
    Adapter,
    Binds,
    LimitsPool,
    OwnedConnection,
    OwnedPool,
    TakesPools,
    suite_for,
)
from procrastinate_psycopg import PsycopgConnector, SyncPsycopgConnector

#: What owners of pools and connections set up for themselves.
TASTES: Mapping[str, Mapping[str, Any]] = {
    "tuples": {},
    "dict_rows": {"row_factory": dict_row},
    "named_rows_in_autocommit": {"row_factory": namedtuple_row, "autocommit": True},
    "prepares_at_once": {"prepare_threshold": 0, "cursor_factory": psycopg.Cursor},
    "client_cursor": {"cursor_factory": psycopg.ClientCursor, "prepare_threshold": None},
}


def state_of(connection: psycopg.BaseConnection[Any]) -> Any:
    return (
        connection.autocommit,
        connection.isolation_level,
        connection.read_only,
        connection.row_factory,  # type: ignore[attr-defined]
        connection.cursor_factory,  # type: ignore[attr-defined]
        connection.prepare_threshold,
        connection.pgconn.transaction_status,
    )


def rows_of(cursor: Any) -> Any:
    return None if cursor.description is None else cursor.fetchall()


def sync_pool_with(**options: Any) -> Callable[[str], Any]:
    @contextmanager
    def opened(dsn: str) -> Iterator[OwnedPool]:
        with psycopg_pool.ConnectionPool(
            dsn, kwargs=options, min_size=1, max_size=6, open=True
        ) as pool:

            def query(sql: str) -> Any:
                with pool.connection() as connection:
                    return rows_of(connection.execute(sql.encode()))

            def state() -> Any:
                with pool.connection() as connection:
                    return state_of(connection)

            yield OwnedPool(pool, query, state)

    return opened


def pool_with(**options: Any) -> Callable[[str], Any]:
    options = async_options(options)

    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[OwnedPool]:
        async with psycopg_pool.AsyncConnectionPool(
            dsn, kwargs=options, min_size=1, max_size=6, open=False
        ) as pool:

            async def query(sql: str) -> Any:
                async with pool.connection() as connection:
                    cursor = await connection.execute(sql.encode())
                    return None if cursor.description is None else await cursor.fetchall()

            async def state() -> Any:
                async with pool.connection() as connection:
                    return state_of(connection)

            yield OwnedPool(pool, query, state)

    return opened


def async_options(options: Mapping[str, Any]) -> dict[str, Any]:
    of_async = {
        psycopg.Cursor: psycopg.AsyncCursor,
        psycopg.ClientCursor: psycopg.AsyncClientCursor,
    }
    return {
        name: of_async.get(value, value) if name == "cursor_factory" else value
        for name, value in options.items()
    }


def sync_connection_with(**options: Any) -> Callable[[str], Any]:
    @contextmanager
    def opened(dsn: str) -> Iterator[OwnedConnection]:
        with psycopg.connect(dsn, **options) as connection:
            autocommit = connection.autocommit

            def query(sql: str) -> Any:
                return rows_of(connection.execute(sql.encode()))

            def begin() -> None:
                if autocommit:
                    query("begin")

            def end(how: str) -> None:
                query(how) if autocommit else getattr(connection, how)()
                begin()

            begin()
            yield OwnedConnection(
                connection,
                query=query,
                commit=lambda: end("commit"),
                rollback=lambda: end("rollback"),
                state=lambda: state_of(connection),
            )

    return opened


def connection_with(**options: Any) -> Callable[[str], Any]:
    options = async_options(options)

    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[OwnedConnection]:
        async with await psycopg.AsyncConnection.connect(dsn, **options) as connection:
            autocommit = connection.autocommit

            async def query(sql: str) -> Any:
                cursor = await connection.execute(sql.encode())
                return None if cursor.description is None else await cursor.fetchall()

            async def begin() -> None:
                if autocommit:
                    await query("begin")

            async def end(how: str) -> None:
                await (query(how) if autocommit else getattr(connection, how)())
                await begin()

            await begin()
            yield OwnedConnection(
                connection,
                query=query,
                commit=lambda: end("commit"),
                rollback=lambda: end("rollback"),
                state=lambda: state_of(connection),
            )

    return opened


class PsycopgAdapter(Adapter, LimitsPool, TakesPools, Binds):
    connector_class = PsycopgConnector
    name = "psycopg"

    def connector(self, dsn: str, **options: Any) -> PsycopgConnector:
        return PsycopgConnector(conninfo=dsn, **options)

    def event_loop(self) -> asyncio.AbstractEventLoop:
        if sys.platform == "win32":
            return asyncio.SelectorEventLoop()  # psycopg refuses the other one
        return super().event_loop()

    def limited(self, dsn: str) -> PsycopgConnector:
        return PsycopgConnector(conninfo=dsn, max_size=1, pool_timeout=3.0)

    def pools(self) -> Mapping[str, Callable[[str], Any]]:
        return {name: pool_with(**options) for name, options in TASTES.items()}

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {name: connection_with(**options) for name, options in TASTES.items()}


class SyncPsycopgAdapter(Adapter, LimitsPool, TakesPools, Binds):
    connector_class = SyncPsycopgConnector
    name = "psycopg_sync"

    def connector(self, dsn: str, **options: Any) -> SyncPsycopgConnector:
        return SyncPsycopgConnector(conninfo=dsn, **options)

    def limited(self, dsn: str) -> SyncPsycopgConnector:
        return SyncPsycopgConnector(conninfo=dsn, max_size=1, pool_timeout=3.0)

    def pools(self) -> Mapping[str, Callable[[str], Any]]:
        return {name: sync_pool_with(**options) for name, options in TASTES.items()}

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {name: sync_connection_with(**options) for name, options in TASTES.items()}


TestPsycopg = suite_for(PsycopgAdapter())
TestSyncPsycopg = suite_for(SyncPsycopgAdapter())
