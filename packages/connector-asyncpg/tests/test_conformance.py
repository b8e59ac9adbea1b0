"""The connector passes the public test kit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from procrastinate_asyncpg import AsyncpgConnector
from procrastinate_connector_testkit import (
    Adapter,
    Binds,
    LimitsPool,
    OwnedConnection,
    OwnedPool,
    TakesPools,
    suite_for,
)


class Rows(asyncpg.Record):
    """A record class of the owner's, which is not a tuple of its values."""

    def __iter__(self) -> Any:
        return iter(self.items())


async def with_json(connection: asyncpg.Connection[Any]) -> None:
    """Have JSON decoded, as owners of pools do."""
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind, schema="pg_catalog", encoder=json.dumps, decoder=json.loads
        )


def pool_with(**options: Any) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[OwnedPool]:
        pool = await asyncpg.create_pool(dsn, min_size=1, max_size=6, **options)

        async def query(sql: str) -> Any:
            async with pool.acquire() as connection:
                return [dict(row.items()) for row in await connection.fetch(sql)]

        async def state() -> Any:
            async with pool.acquire() as connection:
                return connection.is_in_transaction(), await connection.fetchval(
                    "select '[1]'::jsonb"
                )

        try:
            yield OwnedPool(pool, query, state)
        finally:
            pool.terminate()

    return opened


def connection_with(*, pooled: bool = False, **options: Any) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[OwnedConnection]:
        pool = await asyncpg.create_pool(dsn, min_size=1, max_size=1, **options)
        connection: Any = await pool.acquire()
        await connection.execute("begin")

        async def query(sql: str) -> Any:
            return [dict(row.items()) for row in await connection.fetch(sql)]

        async def end(how: str) -> None:
            await connection.execute(how)
            await connection.execute("begin")

        try:
            yield OwnedConnection(
                connection if pooled else connection._con,
                query=query,
                commit=lambda: end("commit"),
                rollback=lambda: end("rollback"),
                state=connection.is_in_transaction,
            )
        finally:
            pool.terminate()

    return opened


class AsyncpgAdapter(Adapter, LimitsPool, TakesPools, Binds):
    connector_class = AsyncpgConnector
    name = "asyncpg"

    def connector(self, dsn: str, **options: Any) -> AsyncpgConnector:
        return AsyncpgConnector(dsn=dsn, **options)

    def limited(self, dsn: str) -> AsyncpgConnector:
        return AsyncpgConnector(dsn=dsn, max_size=1, pool_timeout=3.0)

    def pools(self) -> Mapping[str, Callable[[str], Any]]:
        return {
            "plain": pool_with(),
            "codecs_and_records": pool_with(init=with_json, record_class=Rows),
        }

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {
            "connection": connection_with(),
            "of_a_pool": connection_with(pooled=True, init=with_json, record_class=Rows),
        }


TestAsyncpg = suite_for(AsyncpgAdapter())
