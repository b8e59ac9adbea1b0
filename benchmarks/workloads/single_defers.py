"""Single defers with each connector, in turns with plain inserts by the same driver.

Both go to one server from one process, a block of one and then a block of the other, so that what
else the machine does meets both. The limit of SQLAlchemy's connectors is the driver below.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import procrastinate
from benchmarks import limits
from benchmarks.measures import Sample
from benchmarks.workloads.defer import noop_of, url_of

BLOCK = 100
_INSERT = "insert into jobs (args) values (%s::jsonb) returning id"
_NUMBERED = "insert into jobs (args) values ($1::text::jsonb) returning id"

Call: TypeAlias = Callable[[int], object]
AsyncCall: TypeAlias = Callable[[int], Awaitable[object]]


def _args(number: int) -> str:
    return f'{{"n": {number}}}'


# --- plain inserts, each of which is committed by itself ------------------------------------------


@contextmanager
def _by_psycopg2(dsn: str) -> Iterator[Call]:
    import psycopg2

    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    cursor = connection.cursor()

    def insert(number: int) -> object:
        cursor.execute(_INSERT, [_args(number)])
        return cursor.fetchone()

    yield insert
    connection.close()


@contextmanager
def _by_psycopg(dsn: str) -> Iterator[Call]:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        yield lambda number: connection.execute(_INSERT, [_args(number)]).fetchone()


@asynccontextmanager
async def _by_psycopg_async(dsn: str) -> AsyncIterator[AsyncCall]:
    import psycopg

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:

        async def insert(number: int) -> object:
            return await (await connection.execute(_INSERT, [_args(number)])).fetchone()

        yield insert


@asynccontextmanager
async def _by_aiopg(dsn: str) -> AsyncIterator[AsyncCall]:
    import aiopg

    async with aiopg.connect(dsn) as connection, connection.cursor() as cursor:

        async def insert(number: int) -> object:
            await cursor.execute(_INSERT, [_args(number)])
            return await cursor.fetchone()

        yield insert


@asynccontextmanager
async def _by_asyncpg(dsn: str) -> AsyncIterator[AsyncCall]:
    import asyncpg

    connection = await asyncpg.connect(**limits.for_asyncpg(dsn))
    yield lambda number: connection.fetchval(_NUMBERED, _args(number))
    await connection.close()


# --- the connectors -------------------------------------------------------------------------------


def _dsn(dsn: str) -> dict[str, Any]:
    return {"dsn": dsn}


def _conninfo(dsn: str) -> dict[str, Any]:
    return {"conninfo": dsn}


#: By the names of the measures: the class, its arguments for a DSN, and the limit.
SYNC: dict[str, tuple[str, Callable[[str], dict[str, Any]], Any]] = {
    "Psycopg2": ("Psycopg2Connector", _dsn, _by_psycopg2),
    "SQLAlchemy, psycopg2": (
        *("SQLAlchemyConnector", lambda dsn: _dsn(url_of(dsn)), _by_psycopg2),
    ),
    "SQLAlchemy, psycopg": (
        *("SQLAlchemyConnector", lambda dsn: _dsn(url_of(dsn, "psycopg")), _by_psycopg),
    ),
    "SyncPsycopg": ("SyncPsycopgConnector", _conninfo, _by_psycopg),
}
ASYNC: dict[str, tuple[str, Callable[[str], dict[str, Any]], Any]] = {
    "Aiopg": ("AiopgConnector", _dsn, _by_aiopg),
    "Psycopg": ("PsycopgConnector", _conninfo, _by_psycopg_async),
    "Asyncpg": ("AsyncpgConnector", limits.for_asyncpg, _by_asyncpg),
    "SQLAlchemyAsync, asyncpg": (
        "SQLAlchemyAsyncConnector",
        lambda dsn: {"url": url_of(dsn, "asyncpg")},
        _by_asyncpg,
    ),
    "SQLAlchemyAsync, psycopg": (
        "SQLAlchemyAsyncConnector",
        lambda dsn: {"url": url_of(dsn, "psycopg")},
        _by_psycopg_async,
    ),
}
ALL = (*SYNC, *ASYNC)


def measured(name: str, dsn_of_limit: str, dsn: str, count: int) -> Sample:
    """Return the rates of defers with a connector and of its limit, in turns."""
    if name in SYNC:
        return _measured(name, dsn_of_limit, dsn, count)
    return asyncio.run(_measured_async(name, dsn_of_limit, dsn, count))


def _measured(name: str, dsn_of_limit: str, dsn: str, count: int) -> Sample:
    class_name, arguments, limit = SYNC[name]
    app = procrastinate.App(connector=getattr(procrastinate, class_name)(**arguments(dsn)))
    times = [0.0, 0.0]
    with limit(dsn_of_limit) as insert, app.open():
        task = noop_of(app)
        calls: tuple[Call, Call] = (lambda number: task.defer(n=number), insert)
        for call in calls:
            for number in range(10):
                call(number)
        for turn in range(max(1, count // BLOCK)):
            for which in (0, 1) if turn % 2 else (1, 0):
                call = calls[which]
                began = time.perf_counter()
                for number in range(BLOCK):
                    call(number)
                times[which] += time.perf_counter() - began
    return _sample(count, times)


async def _measured_async(name: str, dsn_of_limit: str, dsn: str, count: int) -> Sample:
    class_name, arguments, limit = ASYNC[name]
    app = procrastinate.App(connector=getattr(procrastinate, class_name)(**arguments(dsn)))
    times = [0.0, 0.0]
    async with limit(dsn_of_limit) as insert, app.open_async():
        task = noop_of(app)
        calls: tuple[AsyncCall, AsyncCall] = (lambda number: task.defer_async(n=number), insert)
        for call in calls:
            for number in range(10):
                await call(number)
        for turn in range(max(1, count // BLOCK)):
            for which in (0, 1) if turn % 2 else (1, 0):
                call = calls[which]
                began = time.perf_counter()
                for number in range(BLOCK):
                    await call(number)
                times[which] += time.perf_counter() - began
    return _sample(count, times)


def _sample(count: int, times: list[float]) -> Sample:
    done = max(1, count // BLOCK) * BLOCK
    ours, limit = times
    return Sample(done / ours, done / limit)
