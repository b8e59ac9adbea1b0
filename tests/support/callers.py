"""Connections as applications have them, of every class that an installed package binds.

Each opens a transaction of its owner's, whatever the driver calls that, and runs the owner's SQL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiopg
import asyncpg
import psycopg
import psycopg.adapt
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import sqlalchemy
import sqlalchemy.orm
from psycopg.rows import dict_row
from psycopg2.extensions import parse_dsn
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

Run = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True)
class Caller:
    """A connection, and how its owner uses it: SQL, COMMIT, ROLLBACK."""

    connection: Any
    sql: Run
    commit: Callable[[], Awaitable[Any]]
    rollback: Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class Kind:
    """A way to open one, and the class that its binder is announced for."""

    binder: str
    open: Callable[[str], AbstractAsyncContextManager[Caller]]
    is_async: bool = False


def of_plain(run: Callable[[str], Any]) -> Run:
    async def sql(text: str) -> Any:
        return run(text)

    return sql


def caller(connection: Any, sql: Run) -> Caller:
    """Return a caller whose connection has a commit and a rollback, of either kind."""

    async def end(how: str) -> None:
        ended = getattr(connection, how)()
        if hasattr(ended, "__await__"):
            await ended

    return Caller(connection, sql, lambda: end("commit"), lambda: end("rollback"))


def by_commands(connection: Any, sql: Run) -> Caller:
    """Return a caller of a driver that leaves BEGIN, COMMIT and ROLLBACK to its users."""

    async def end(how: str) -> None:
        await sql(how)
        await sql("begin")

    return Caller(connection, sql, lambda: end("commit"), lambda: end("rollback"))


# --- psycopg2 and aiopg ---


def psycopg2_connection(**options: Any) -> Callable[[str], AbstractAsyncContextManager[Caller]]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Caller]:
        connection = psycopg2.connect(dsn, **options)

        def run(text: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(text)

        try:
            yield caller(connection, of_plain(run))
        finally:
            connection.close()

    return opened


@asynccontextmanager
async def aiopg_connection(dsn: str) -> AsyncIterator[Caller]:
    async with aiopg.connect(dsn) as connection:

        async def sql(text: str) -> None:
            async with connection.cursor() as cursor:
                await cursor.execute(text)

        await sql("begin")
        yield by_commands(connection, sql)


# --- psycopg 3 ---


def psycopg_connection(**options: Any) -> Callable[[str], AbstractAsyncContextManager[Caller]]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Caller]:
        with psycopg.connect(dsn, **options) as connection:
            yield caller(connection, of_plain(lambda text: connection.execute(text.encode())))

    return opened


def psycopg_async(**options: Any) -> Callable[[str], AbstractAsyncContextManager[Caller]]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Caller]:
        async with await psycopg.AsyncConnection.connect(dsn, **options) as connection:
            yield caller(connection, lambda text: connection.execute(text.encode()))

    return opened


# --- asyncpg ---


@asynccontextmanager
async def asyncpg_connection(dsn: str) -> AsyncIterator[Caller]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("begin")
        yield by_commands(connection, connection.execute)
    finally:
        await connection.close()


@asynccontextmanager
async def asyncpg_of_a_pool(dsn: str) -> AsyncIterator[Caller]:
    async with asyncpg.create_pool(dsn, min_size=1) as pool, pool.acquire() as connection:
        await connection.execute("begin")
        yield by_commands(connection, connection.execute)
        await connection.execute("rollback")


# --- SQLAlchemy ---


def url_of(dsn: str, driver: str) -> sqlalchemy.URL:
    parts = parse_dsn(dsn)
    query = {"host": parts["host"], "port": parts["port"]}
    return sqlalchemy.URL.create(
        f"postgresql+{driver}", parts["user"], database=parts["dbname"], query=query
    )


#: Of a statement of the owner's: it may have no rows that could come in pieces.
AT_ONCE: Mapping[str, Any] = {"stream_results": False, "yield_per": None}


def sqlalchemy_caller(
    driver: str, make: Callable[[Any], Any], **options: Any
) -> Callable[[str], AbstractAsyncContextManager[Caller]]:
    """Return what opens something that ``make`` makes of an engine, and closes it."""

    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Caller]:
        engine = sqlalchemy.create_engine(url_of(dsn, driver), **options)
        theirs = make(engine)
        try:

            def run(text: str) -> Any:
                return theirs.execute(sqlalchemy.text(text), execution_options=AT_ONCE)

            yield caller(theirs, of_plain(run))
        finally:
            getattr(theirs, "remove", theirs.close)()
            engine.dispose()

    return opened


def sqlalchemy_async_caller(
    driver: str, make: Callable[[Any], Any]
) -> Callable[[str], AbstractAsyncContextManager[Caller]]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Caller]:
        async with AsyncExitStack() as stack:
            engine = create_async_engine(url_of(dsn, driver))
            stack.push_async_callback(engine.dispose)
            theirs = make(engine)
            if hasattr(theirs, "start"):
                await theirs.start()
            stack.push_async_callback(getattr(theirs, "remove", theirs.close))
            yield caller(
                theirs,
                lambda text: theirs.execute(sqlalchemy.text(text), execution_options=AT_ONCE),
            )

    return opened


class OwnSession(sqlalchemy.orm.Session):
    """As applications derive it."""


def scoped(engine: Any) -> Any:
    return sqlalchemy.orm.scoped_session(sqlalchemy.orm.sessionmaker(engine))


def async_scoped(engine: Any) -> Any:
    return async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)


_CONNECTION = "sqlalchemy.engine.base.Connection"
_SESSION = "sqlalchemy.orm.session.Session"
_SCOPED = "sqlalchemy.orm.scoping.scoped_session"
_ASYNC_CONNECTION = "sqlalchemy.ext.asyncio.engine.AsyncConnection"
_ASYNC_SESSION = "sqlalchemy.ext.asyncio.session.AsyncSession"
_ASYNC_SCOPED = "sqlalchemy.ext.asyncio.scoping.async_scoped_session"


@asynccontextmanager
async def aiopg_outside(dsn: str) -> AsyncIterator[Caller]:
    async with aiopg_connection(dsn) as caller:
        await caller.sql("rollback")
        yield caller


@asynccontextmanager
async def asyncpg_outside(dsn: str) -> AsyncIterator[Caller]:
    async with asyncpg_connection(dsn) as caller:
        await caller.sql("rollback")
        yield caller


@asynccontextmanager
async def psycopg2_in_autocommit(dsn: str) -> AsyncIterator[Caller]:
    async with psycopg2_connection()(dsn) as caller:
        caller.connection.autocommit = True
        yield caller


def connect_in_autocommit(engine: Any) -> Any:
    return engine.execution_options(isolation_level="AUTOCOMMIT").connect()


def session_in_autocommit(engine: Any) -> Any:
    return OwnSession(engine.execution_options(isolation_level="AUTOCOMMIT"))


def async_session_in_autocommit(engine: Any) -> Any:
    return AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT"))


#: Connections that are in no transaction: each statement is committed by itself.
IN_AUTOCOMMIT: Mapping[str, Kind] = {
    "psycopg2": Kind("psycopg2.extensions.connection", psycopg2_in_autocommit),
    "aiopg": Kind("aiopg.connection.Connection", aiopg_outside, is_async=True),
    "psycopg": Kind("psycopg.Connection", psycopg_connection(autocommit=True)),
    "psycopg async": Kind("psycopg.AsyncConnection", psycopg_async(autocommit=True), is_async=True),
    "asyncpg": Kind("asyncpg.connection.Connection", asyncpg_outside, is_async=True),
    "Connection": Kind(_CONNECTION, sqlalchemy_caller("psycopg2", connect_in_autocommit)),
    "Connection over psycopg": Kind(
        _CONNECTION, sqlalchemy_caller("psycopg", connect_in_autocommit)
    ),
    "Session": Kind(_SESSION, sqlalchemy_caller("psycopg2", session_in_autocommit)),
    "AsyncConnection over asyncpg": Kind(
        _ASYNC_CONNECTION, sqlalchemy_async_caller("asyncpg", connect_in_autocommit), is_async=True
    ),
    "AsyncConnection over psycopg": Kind(
        _ASYNC_CONNECTION, sqlalchemy_async_caller("psycopg", connect_in_autocommit), is_async=True
    ),
    "AsyncSession over asyncpg": Kind(
        _ASYNC_SESSION,
        sqlalchemy_async_caller("asyncpg", async_session_in_autocommit),
        is_async=True,
    ),
}

# --- Whatever their owners have set ---


def psycopg2_with_casters() -> Callable[[str], AbstractAsyncContextManager[Caller]]:
    """Return what opens a connection that reads numbers and truth as texts with a mark."""

    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Caller]:
        async with psycopg2_connection()(dsn) as caller:
            kinds = (*psycopg2.extensions.INTEGER.values, *psycopg2.extensions.BOOLEAN.values)
            marked = psycopg2.extensions.new_type(kinds, "MARKED", lambda value, _: f"!{value}")
            psycopg2.extensions.register_type(marked, caller.connection)
            yield caller

    return opened


class Marked(psycopg.adapt.Loader):
    def load(self, data: Any) -> Any:
        return f"!{bytes(data).decode()}"


TYPES = ("bool", "int2", "int4", "int8", "float8", "text", "timestamptz")


def with_loaders(connection: Any, *_: Any) -> None:
    for name in TYPES:
        connection.adapters.register_loader(name, Marked)


@asynccontextmanager
async def psycopg_with_loaders(dsn: str) -> AsyncIterator[Caller]:
    async with psycopg_connection()(dsn) as caller:
        with_loaders(caller.connection)
        yield caller


@asynccontextmanager
async def psycopg_async_with_loaders(dsn: str) -> AsyncIterator[Caller]:
    async with psycopg_async()(dsn) as caller:
        with_loaders(caller.connection)
        yield caller


async def with_codecs(connection: Any) -> None:
    for name in TYPES:
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=str, decoder=lambda text: f"!{text}"
        )


@asynccontextmanager
async def asyncpg_with_codecs(dsn: str) -> AsyncIterator[Caller]:
    async with asyncpg_connection(dsn) as caller:
        await with_codecs(caller.connection)
        yield caller


@asynccontextmanager
async def asyncpg_of_a_pool_with_codecs(dsn: str) -> AsyncIterator[Caller]:
    async with asyncpg_of_a_pool(dsn) as caller:
        await with_codecs(caller.connection)
        yield caller


def connect_with_loaders(engine: Any) -> Any:
    sqlalchemy.event.listen(engine, "connect", with_loaders)
    return engine.connect()


def connect_async_with_loaders(engine: Any) -> Any:
    sqlalchemy.event.listen(
        engine.sync_engine,
        "connect",
        lambda connection, _: with_loaders(connection.driver_connection),
    )
    return AsyncSession(engine)


def connect_async_with_codecs(engine: Any) -> Any:
    sqlalchemy.event.listen(
        engine.sync_engine,
        "connect",
        lambda connection, _: connection.run_async(with_codecs),
    )
    return engine.connect()


def connect_by_pieces(engine: Any) -> Any:
    return engine.execution_options(yield_per=1).connect()


#: Connections whose owners have changed how rows come, or how values are read.
OF_OTHER_TASTES: Mapping[str, Kind] = {
    "psycopg2, casters": Kind("psycopg2.extensions.connection", psycopg2_with_casters()),
    "psycopg, loaders": Kind("psycopg.Connection", psycopg_with_loaders),
    "psycopg async, loaders": Kind(
        "psycopg.AsyncConnection", psycopg_async_with_loaders, is_async=True
    ),
    "asyncpg, codecs": Kind("asyncpg.connection.Connection", asyncpg_with_codecs, is_async=True),
    "asyncpg, of a pool, codecs": Kind(
        "asyncpg.pool.PoolConnectionProxy", asyncpg_of_a_pool_with_codecs, is_async=True
    ),
    "Connection, yield_per": Kind(_CONNECTION, sqlalchemy_caller("psycopg2", connect_by_pieces)),
    "Connection over psycopg, yield_per": Kind(
        _CONNECTION, sqlalchemy_caller("psycopg", connect_by_pieces)
    ),
    "Connection over psycopg, loaders": Kind(
        _CONNECTION, sqlalchemy_caller("psycopg", connect_with_loaders)
    ),
    "AsyncConnection over asyncpg, yield_per": Kind(
        _ASYNC_CONNECTION, sqlalchemy_async_caller("asyncpg", connect_by_pieces), is_async=True
    ),
    "AsyncConnection over asyncpg, codecs": Kind(
        _ASYNC_CONNECTION,
        sqlalchemy_async_caller("asyncpg", connect_async_with_codecs),
        is_async=True,
    ),
    "AsyncConnection over psycopg, yield_per": Kind(
        _ASYNC_CONNECTION, sqlalchemy_async_caller("psycopg", connect_by_pieces), is_async=True
    ),
    "AsyncSession over psycopg, loaders": Kind(
        _ASYNC_SESSION,
        sqlalchemy_async_caller("psycopg", connect_async_with_loaders),
        is_async=True,
    ),
}

KINDS: Mapping[str, Kind] = {
    "psycopg2": Kind("psycopg2.extensions.connection", psycopg2_connection()),
    "psycopg2, rows as dictionaries": Kind(
        "psycopg2.extensions.connection",
        psycopg2_connection(cursor_factory=psycopg2.extras.RealDictCursor),
    ),
    "aiopg": Kind("aiopg.connection.Connection", aiopg_connection, is_async=True),
    "psycopg": Kind("psycopg.Connection", psycopg_connection()),
    "psycopg, rows as dictionaries": Kind(
        "psycopg.Connection", psycopg_connection(row_factory=dict_row, prepare_threshold=0)
    ),
    "psycopg async": Kind("psycopg.AsyncConnection", psycopg_async(), is_async=True),
    "psycopg async, rows as dictionaries": Kind(
        "psycopg.AsyncConnection", psycopg_async(row_factory=dict_row), is_async=True
    ),
    "asyncpg": Kind("asyncpg.connection.Connection", asyncpg_connection, is_async=True),
    "asyncpg, of a pool": Kind(
        "asyncpg.pool.PoolConnectionProxy", asyncpg_of_a_pool, is_async=True
    ),
    "Connection": Kind(_CONNECTION, sqlalchemy_caller("psycopg2", lambda engine: engine.connect())),
    "Connection, echo": Kind(
        _CONNECTION, sqlalchemy_caller("psycopg2", lambda engine: engine.connect(), echo=True)
    ),
    "Connection over psycopg": Kind(
        _CONNECTION, sqlalchemy_caller("psycopg", lambda engine: engine.connect())
    ),
    "Session": Kind(_SESSION, sqlalchemy_caller("psycopg2", OwnSession)),
    "Session over psycopg": Kind(_SESSION, sqlalchemy_caller("psycopg", OwnSession)),
    "scoped_session": Kind(_SCOPED, sqlalchemy_caller("psycopg2", scoped)),
    "AsyncConnection over asyncpg": Kind(
        _ASYNC_CONNECTION,
        sqlalchemy_async_caller("asyncpg", lambda engine: engine.connect()),
        is_async=True,
    ),
    "AsyncConnection over psycopg": Kind(
        _ASYNC_CONNECTION,
        sqlalchemy_async_caller("psycopg", lambda engine: engine.connect()),
        is_async=True,
    ),
    "AsyncSession over asyncpg": Kind(
        _ASYNC_SESSION, sqlalchemy_async_caller("asyncpg", AsyncSession), is_async=True
    ),
    "AsyncSession over psycopg": Kind(
        _ASYNC_SESSION, sqlalchemy_async_caller("psycopg", AsyncSession), is_async=True
    ),
    "async_scoped_session": Kind(
        _ASYNC_SCOPED, sqlalchemy_async_caller("asyncpg", async_scoped), is_async=True
    ),
}
