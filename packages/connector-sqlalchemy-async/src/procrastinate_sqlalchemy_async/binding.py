"""What runs queries on SQLAlchemy's asynchronous connections and sessions of the caller's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from procrastinate.connector import Binder
from procrastinate.errors import InvalidOption
from procrastinate_sqlalchemy_async.drivers import driver_of
from procrastinate_sqlalchemy_async.sessions import BoundExecutor


def bound(connection: Any) -> BoundExecutor:
    """Return an executor in the caller's transaction. Raises `InvalidOption` for anything else."""
    if isinstance(connection, AsyncConnection):
        return _bound_connection(connection)
    if isinstance(connection, async_scoped_session):
        connection = connection()
    if isinstance(connection, AsyncSession):
        return _bound_session(connection)
    kind = type(connection)
    raise InvalidOption(
        "connection= takes an SQLAlchemy AsyncConnection or AsyncSession,"
        f" not {kind.__module__}.{kind.__qualname__}"
    )


def _bound_connection(connection: AsyncConnection) -> BoundExecutor:
    if connection.sync_connection is None:
        raise InvalidOption(
            "the AsyncConnection given as connection= is not started: write"
            " `async with engine.connect() as connection:`"
        )
    if connection.closed:
        raise InvalidOption("the AsyncConnection given as connection= is closed")
    driver_of(connection.dialect, "the AsyncConnection given as connection=")

    async def itself() -> AsyncConnection:
        return connection

    return BoundExecutor(itself)


def _bound_session(session: AsyncSession) -> BoundExecutor:
    try:
        bind = session.get_bind()
    except sa_exc.SQLAlchemyError as exc:
        raise InvalidOption(
            "the AsyncSession given as connection= has no engine of its own:"
            " give `await session.connection(...)` of the right one"
        ) from exc
    driver_of(bind.dialect, "the AsyncSession given as connection=")
    return BoundExecutor(session.connection)


CONNECTION = Binder("SQLAlchemy AsyncConnection", bind_async=bound)
SESSION = Binder("SQLAlchemy AsyncSession", bind_async=bound)
SCOPED_SESSION = Binder("SQLAlchemy async_scoped_session", bind_async=bound)
