"""The connector passes the public test kit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiopg
import psycopg2.extras

from procrastinate_aiopg import AiopgConnector
from procrastinate_connector_testkit import (
    Adapter,
    Binds,
    LimitsPool,
    OwnedConnection,
    OwnedPool,
    TakesPools,
    suite_for,
)


async def run(connection: aiopg.Connection, sql: str) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(sql)
        return await cursor.fetchall() if cursor.description else []


def state_of(connection: aiopg.Connection) -> Any:
    raw = connection.raw
    return raw.isolation_level, raw.cursor_factory, raw.get_transaction_status()


def pool_with(**options: Any) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[OwnedPool]:
        async with aiopg.create_pool(dsn, minsize=1, maxsize=6, **options) as pool:

            async def query(sql: str) -> Any:
                async with pool.acquire() as connection:
                    return await run(connection, sql)

            async def state() -> Any:
                async with pool.acquire() as connection:
                    return state_of(connection)

            yield OwnedPool(pool, query, state)
            pool.terminate()

    return opened


def connection_with(**options: Any) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[OwnedConnection]:
        async with aiopg.connect(dsn, **options) as connection:
            await run(connection, "begin")

            async def end(how: str) -> None:
                await run(connection, how)
                await run(connection, "begin")

            yield OwnedConnection(
                connection,
                query=lambda sql: run(connection, sql),
                commit=lambda: end("commit"),
                rollback=lambda: end("rollback"),
                state=lambda: state_of(connection),
            )

    return opened


ROW_FACTORIES: dict[str, dict[str, Any]] = {
    "tuples": {},
    "dict_rows": {"cursor_factory": psycopg2.extras.RealDictCursor},
}


class AiopgAdapter(Adapter, LimitsPool, TakesPools, Binds):
    connector_class = AiopgConnector
    name = "aiopg"

    def connector(self, dsn: str, **options: Any) -> AiopgConnector:
        return AiopgConnector(dsn=dsn, **options)

    def limited(self, dsn: str) -> AiopgConnector:
        return AiopgConnector(dsn=dsn, maxsize=1, pool_timeout=3.0)

    def pools(self) -> Mapping[str, Callable[[str], Any]]:
        return {name: pool_with(**options) for name, options in ROW_FACTORIES.items()}

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {name: connection_with(**options) for name, options in ROW_FACTORIES.items()}


TestAiopg = suite_for(AiopgAdapter())
