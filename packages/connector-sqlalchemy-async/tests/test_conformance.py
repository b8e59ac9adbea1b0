"""The connector passes the public test kit, over both drivers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    create_async_engine,
)

from procrastinate_connector_testkit import (
    Adapter,
    Binds,
    LimitsPool,
    OwnedConnection,
    OwnedPool,
    TakesPools,
    suite_for,
)
from procrastinate_sqlalchemy_async import SQLAlchemyAsyncConnector

from .helpers import arguments_for, url_of


async def rows_of(connection: Any, sql: str) -> Any:
    result = await connection.execute(sqlalchemy.text(sql))
    return result.all() if result.returns_rows else []


async def state_of(connection: AsyncConnection) -> Any:
    fairy = await connection.get_raw_connection()
    adapter: Any = fairy.dbapi_connection
    return adapter.autocommit, await connection.get_isolation_level()


@asynccontextmanager
async def engine_of(driver: str, dsn: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    connect_args = arguments_for(driver, dsn)
    engine = create_async_engine(url_of(driver), pool_size=4, connect_args=connect_args, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


def pool_with(driver: str, **options: Any) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[OwnedPool]:
        async with engine_of(driver, dsn, **options) as engine:

            async def query(sql: str) -> Any:
                async with engine.begin() as connection:
                    return await rows_of(connection, sql)

            async def state() -> Any:
                async with engine.begin() as connection:
                    return await state_of(connection)

            yield OwnedPool(engine, query, state)

    return opened


def connection_over(driver: str) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[OwnedConnection]:
        async with engine_of(driver, dsn) as engine, engine.connect() as connection:
            yield OwnedConnection(
                connection,
                query=lambda sql: rows_of(connection, sql),
                commit=connection.commit,
                rollback=connection.rollback,
                state=lambda: state_of(connection),
            )

    return opened


def session_over(driver: str, kind: Callable[[AsyncSession], Any]) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[OwnedConnection]:
        async with engine_of(driver, dsn) as engine, AsyncSession(engine) as session:

            async def state() -> Any:
                return await state_of(await session.connection())

            yield OwnedConnection(
                kind(session),
                query=lambda sql: rows_of(session, sql),
                commit=session.commit,
                rollback=session.rollback,
                state=state,
            )

    return opened


def scoped(session: AsyncSession) -> Any:
    return async_scoped_session(lambda: session, scopefunc=lambda: 1)  # type: ignore[arg-type]


class AsyncpgAdapter(Adapter, LimitsPool, TakesPools, Binds):
    connector_class = SQLAlchemyAsyncConnector
    name = "sqlalchemy_async"
    driver = "asyncpg"

    def connector(self, dsn: str, **options: Any) -> SQLAlchemyAsyncConnector:
        return SQLAlchemyAsyncConnector(
            url=url_of(self.driver), connect_args=arguments_for(self.driver, dsn), **options
        )

    def limited(self, dsn: str) -> SQLAlchemyAsyncConnector:
        return self.connector(dsn, pool_size=1, max_overflow=0, pool_timeout=3)

    def pools(self) -> Mapping[str, Callable[[str], Any]]:
        return {
            "engine": pool_with(self.driver),
            "autocommit": pool_with(self.driver, isolation_level="AUTOCOMMIT"),
            "serializable": pool_with(self.driver, isolation_level="SERIALIZABLE"),
            "echo": pool_with(self.driver, echo=True),
        }

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {
            "AsyncConnection": connection_over(self.driver),
            "AsyncSession": session_over(self.driver, lambda session: session),
            "async_scoped_session": session_over(self.driver, scoped),
        }


class PsycopgAdapter(AsyncpgAdapter):
    driver = "psycopg"


TestOverAsyncpg = suite_for(AsyncpgAdapter())
TestOverPsycopg = suite_for(PsycopgAdapter())
