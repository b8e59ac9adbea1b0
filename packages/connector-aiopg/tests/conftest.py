"""Fixtures: an open connector on an empty database, and a psycopg2 connection to look from."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiopg
import psycopg2
import pytest
import pytest_asyncio

from procrastinate_aiopg import AiopgConnector


class Observer:
    """A synchronous connection beside the one under test."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg2.connect(dsn)
        self.connection.autocommit = True

    def sql(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return [] if cursor.description is None else cursor.fetchall()

    def count(self, sql: str, *values: Any) -> int:
        return int(self.sql(f"select count(*) from {sql}", *values)[0][0])

    def kill(self, pid: int) -> None:
        """End a connection and wait until the server has forgotten it."""
        self.sql("select pg_terminate_backend(%s)", pid)
        until(lambda: self.count("pg_stat_activity where pid = %s", pid) == 0)

    def until(self, condition: Callable[[], bool]) -> None:
        """Poll until something is true."""
        until(condition)

    def others(self) -> int:
        """Return how many other connections there are to this database."""
        return self.count(
            "pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        )


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Poll until something is true; fail when it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"


@pytest.fixture
def observer(procrastinate_dsn: str) -> Iterator[Observer]:
    observer = Observer(procrastinate_dsn)
    observer.sql("create table things (name text primary key)")
    yield observer
    observer.connection.close()


@pytest_asyncio.fixture
async def connector(procrastinate_dsn: str) -> AsyncIterator[AiopgConnector]:
    connector = AiopgConnector(dsn=procrastinate_dsn, maxsize=2)
    await connector.open_async()
    yield connector
    await connector.close_async()


@pytest_asyncio.fixture
async def pool(procrastinate_dsn: str) -> AsyncIterator[aiopg.Pool]:
    pool = await aiopg.create_pool(procrastinate_dsn, maxsize=3)
    yield pool
    pool.terminate()
    await pool.wait_closed()


@pytest_asyncio.fixture(params=["own", "given"])
async def either(
    request: pytest.FixtureRequest, connector: AiopgConnector, pool: aiopg.Pool
) -> AsyncIterator[AiopgConnector]:
    """A connector on its own pool, and one on a pool that was handed in."""
    if request.param == "own":
        yield connector
        return
    given = AiopgConnector()
    await given.open_async(pool)
    yield given
    await given.close_async()
