"""Executors on SQLAlchemy's asynchronous connections: a session of our own, or the caller's."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncConnection

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools.loops import check_loop
from procrastinate.connector_tools.sessions import AsyncSession
from procrastinate.errors import ConnectionLost, ConnectorException
from procrastinate_sqlalchemy_async.drivers import driver_of
from procrastinate_sqlalchemy_async.engines import Source, loop_of
from procrastinate_sqlalchemy_async.leases import (
    Lease,
    driver_error,
    error_of,
    executed,
    first_line,
    is_watched,
)


class Session(AsyncSession[Lease]):
    """One connection of an engine for the length of a block, also as its executor."""

    __slots__ = ("_engine",)

    def __init__(
        self, source: Source, *, transaction: bool, read_only: bool, timeout: float | None
    ) -> None:
        super().__init__(source, transaction=transaction, read_only=read_only, timeout=timeout)
        self._engine = source

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease = self._lease
        try:
            await super().__aexit__(kind, exc, traceback)
        finally:
            if lease is not None:
                if isinstance(exc, GeneratorExit):  # a coroutine that is being closed cannot wait
                    _give_back_later(self._engine, lease)
                else:
                    await self._engine.give_back(lease)


def _give_back_later(source: Source, lease: Lease) -> None:
    """Close a connection now, and have the event loop give its place in the pool back."""
    lease.sever()
    with suppress(RuntimeError):  # no event loop runs
        ending = asyncio.get_running_loop().create_task(source.give_back(lease))
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)


_endings: set[asyncio.Task[None]] = set()


class BoundExecutor:
    """Executes queries in the transaction that the caller has, or SQLAlchemy begins for them."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Callable[[], Awaitable[AsyncConnection]]) -> None:
        self._connection = connection

    async def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        try:
            connection = await self._connection()
            if connection.invalidated:
                raise ConnectionLost(f"{query.name}: the connection given as connection= is broken")
            fairy: Any = await connection.get_raw_connection()
        except sa_exc.SQLAlchemyError as exc:
            raise _unusable(exc, query) from exc
        raw = fairy.driver_connection
        if raw is None:  # it is detached
            raw = connection.dialect.get_driver_connection(fairy.dbapi_connection)
        check_loop(loop_of(raw), "SQLAlchemy connection")
        kind = driver_of(connection.dialect, "the connection given as connection=")
        driver = kind(raw, own=False, direct=False)
        try:
            return await driver.run_bound(query, functools.partial(executed, connection))
        except Exception as exc:
            error = error_of(exc, query, driver, watched=is_watched(connection))
            if error is None:
                raise
            raise error from driver_error(exc, driver)


def _unusable(exc: sa_exc.SQLAlchemyError, query: Query) -> ConnectorException:
    return ConnectorException(
        f"{query.name}: the connection or session given as connection= cannot be used: "
        f"{first_line(exc)}"
    )
