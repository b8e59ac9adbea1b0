"""Single defers with each connector, in turns with plain inserts as its users write them.

All go to one server from one process, a block of one and then a block of the other, so that what
else the machine does meets all of them. With SQLAlchemy there are three: its users pay for its pool
and its transactions with each insert of their own (``engine.begin()``), and beside that the bare
driver below shows what SQLAlchemy costs.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import procrastinate
from benchmarks import limits
from benchmarks.measures import Sample
from benchmarks.workloads.defer import noop_of, url_of

BLOCK = 100  # calls of one kind in a row
WARM = 10  # calls of each kind that are not timed
_INSERT = "insert into jobs (args) values (%s::jsonb) returning id"
_NUMBERED = "insert into jobs (args) values ($1::text::jsonb) returning id"
_NAMED = "insert into jobs (args) values (cast(cast(:args as text) as jsonb)) returning id"

Call: TypeAlias = Callable[[int], object]
AsyncCall: TypeAlias = Callable[[int], Awaitable[object]]
C = TypeVar("C")


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


@contextmanager
def _by_engine(dsn: str, driver: str) -> Iterator[Call]:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url_of(dsn, driver))
    statement = sqlalchemy.text(_NAMED)

    def insert(number: int) -> object:
        with engine.begin() as connection:
            return connection.execute(statement, {"args": _args(number)}).scalar_one()

    yield insert
    engine.dispose()


@asynccontextmanager
async def _by_async_engine(dsn: str, driver: str) -> AsyncIterator[AsyncCall]:
    import sqlalchemy
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url_of(dsn, driver))
    statement = sqlalchemy.text(_NAMED)

    async def insert(number: int) -> object:
        async with engine.begin() as connection:
            return (await connection.execute(statement, {"args": _args(number)})).scalar_one()

    yield insert
    await engine.dispose()


# --- the connectors -------------------------------------------------------------------------------


def _dsn(dsn: str) -> dict[str, Any]:
    return {"dsn": dsn}


def _conninfo(dsn: str) -> dict[str, Any]:
    return {"conninfo": dsn}


def _url(dsn: str, name: str, driver: str) -> dict[str, Any]:
    return {name: url_of(dsn, driver)}


@dataclass(frozen=True)
class Case(Generic[C]):
    """A connector: its class, its arguments for a DSN, and what its defers take turns with."""

    connector: str
    arguments: Callable[[str], dict[str, Any]]
    #: Opens the insert of its users, with a DSN.
    insert: Callable[[str], C]
    #: Opens the insert by the driver below, if that is another one.
    below: Callable[[str], C] | None = None

    @property
    def inserts(self) -> list[Callable[[str], C]]:
        return [self.insert] if self.below is None else [self.insert, self.below]


def _over_engine(driver: str, below: Any) -> Case[AbstractContextManager[Call]]:
    return Case(
        "SQLAlchemyConnector",
        functools.partial(_url, name="dsn", driver=driver),
        functools.partial(_by_engine, driver=driver),
        below,
    )


def _over_async_engine(driver: str, below: Any) -> Case[AbstractAsyncContextManager[AsyncCall]]:
    return Case(
        "SQLAlchemyAsyncConnector",
        functools.partial(_url, name="url", driver=driver),
        functools.partial(_by_async_engine, driver=driver),
        below,
    )


#: By the names of the measures.
SYNC: dict[str, Case[AbstractContextManager[Call]]] = {
    "Psycopg2": Case("Psycopg2Connector", _dsn, _by_psycopg2),
    "SQLAlchemy, psycopg2": _over_engine("psycopg2", _by_psycopg2),
    "SQLAlchemy, psycopg": _over_engine("psycopg", _by_psycopg),
    "SyncPsycopg": Case("SyncPsycopgConnector", _conninfo, _by_psycopg),
}
ASYNC: dict[str, Case[AbstractAsyncContextManager[AsyncCall]]] = {
    "Aiopg": Case("AiopgConnector", _dsn, _by_aiopg),
    "Psycopg": Case("PsycopgConnector", _conninfo, _by_psycopg_async),
    "Asyncpg": Case("AsyncpgConnector", limits.for_asyncpg, _by_asyncpg),
    "SQLAlchemyAsync, asyncpg": _over_async_engine("asyncpg", _by_asyncpg),
    "SQLAlchemyAsync, psycopg": _over_async_engine("psycopg", _by_psycopg_async),
}
ALL = (*SYNC, *ASYNC)


def is_over_another(name: str) -> bool:
    """Whether a connector's driver stands on another one, which is a limit too."""
    return (SYNC.get(name) or ASYNC[name]).below is not None


def measured(name: str, dsn_of_limit: str, dsn: str, count: int) -> list[Sample]:
    """Return the rate of defers with a connector, beside its users' insert and the driver's."""
    if name in SYNC:
        return _measured(SYNC[name], dsn_of_limit, dsn, count)
    return asyncio.run(_measured_async(ASYNC[name], dsn_of_limit, dsn, count))


def _app(case: Case[Any], dsn: str) -> procrastinate.App:
    connector = getattr(procrastinate, case.connector)(**case.arguments(dsn))
    return procrastinate.App(connector=connector)


def _measured(
    case: Case[AbstractContextManager[Call]], dsn_of_limit: str, dsn: str, count: int
) -> list[Sample]:
    with ExitStack() as stack:
        app = stack.enter_context(_app(case, dsn).open())
        task = noop_of(app)
        calls: list[Call] = [lambda number: task.defer(n=number)]
        calls += [stack.enter_context(insert(dsn_of_limit)) for insert in case.inserts]
        times = [0.0] * len(calls)
        for call in calls:
            for number in range(WARM):
                call(number)
        for which in _turns(len(calls), count):
            call = calls[which]
            began = time.perf_counter()
            for number in range(BLOCK):
                call(number)
            times[which] += time.perf_counter() - began
    return _samples(count, times)


async def _measured_async(
    case: Case[AbstractAsyncContextManager[AsyncCall]], dsn_of_limit: str, dsn: str, count: int
) -> list[Sample]:
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(_app(case, dsn).open_async())
        task = noop_of(app)
        calls: list[AsyncCall] = [lambda number: task.defer_async(n=number)]
        for insert in case.inserts:
            calls.append(await stack.enter_async_context(insert(dsn_of_limit)))
        times = [0.0] * len(calls)
        for call in calls:
            for number in range(WARM):
                await call(number)
        for which in _turns(len(calls), count):
            call = calls[which]
            began = time.perf_counter()
            for number in range(BLOCK):
                await call(number)
            times[which] += time.perf_counter() - began
    return _samples(count, times)


def _blocks(count: int) -> int:
    return max(1, count // BLOCK)


def _turns(kinds: int, count: int) -> Iterator[int]:
    """Which kind of call has the next block; the order is turned round each time."""
    for turn in range(_blocks(count)):
        yield from range(kinds) if turn % 2 else reversed(range(kinds))


def _samples(count: int, times: list[float]) -> list[Sample]:
    ours, *limits_ = (_blocks(count) * BLOCK / seconds for seconds in times)
    return [Sample(ours, limit) for limit in limits_]
