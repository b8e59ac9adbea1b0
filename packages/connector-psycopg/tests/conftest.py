"""Fixtures: open connectors on an empty database, and a connection to look from."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import psycopg_pool
import pytest
import pytest_asyncio

from procrastinate.connector import Query
from procrastinate_psycopg import PsycopgConnector, SyncPsycopgConnector


class Observer:
    """A connection beside the ones under test."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True)

    def sql(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""
        cursor = self.connection.execute(sql.encode(), values or None)
        return [] if cursor.description is None else cursor.fetchall()

    def value(self, sql: str, *values: Any) -> Any:
        ((value,),) = self.sql(sql, *values)
        return value

    def kill(self, pid: int) -> None:
        """End a connection and wait until the server has forgotten it."""
        self.value("select pg_terminate_backend(%s)", pid)
        until(lambda: not self.sql("select 1 from pg_stat_activity where pid = %s", pid))


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll until something is true; fail if it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


async def rows(connector: PsycopgConnector, sql: str, **params: Any) -> list[Any]:
    """Execute one query in a session of its own."""
    async with connector.session_async() as session:
        return list(await session.execute(Query("test", sql, params)))


def sync_rows(connector: SyncPsycopgConnector, sql: str, **params: Any) -> list[Any]:
    """Execute one query in a session of its own."""
    with connector.session() as session:
        return list(session.execute(Query("test", sql, params)))


@pytest.fixture
def observer(procrastinate_dsn: str) -> Iterator[Observer]:
    observer = Observer(procrastinate_dsn)
    observer.sql("create table things (name text primary key)")
    yield observer
    observer.connection.close()


@pytest_asyncio.fixture
async def connector(procrastinate_dsn: str) -> AsyncIterator[PsycopgConnector]:
    connector = PsycopgConnector(conninfo=procrastinate_dsn, max_size=2)
    await connector.open_async()
    yield connector
    await connector.close_async()


@pytest.fixture
def sync_connector(procrastinate_dsn: str) -> Iterator[SyncPsycopgConnector]:
    connector = SyncPsycopgConnector(conninfo=procrastinate_dsn, max_size=3)
    connector.open()
    yield connector
    connector.close()


@pytest_asyncio.fixture
async def pool(procrastinate_dsn: str) -> AsyncIterator[psycopg_pool.AsyncConnectionPool[Any]]:
    async with psycopg_pool.AsyncConnectionPool(
        procrastinate_dsn, min_size=1, max_size=3, open=False
    ) as pool:
        yield pool
