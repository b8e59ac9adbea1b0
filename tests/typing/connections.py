"""What a type checker takes for ``connection=``. Never run, only checked."""

from __future__ import annotations

from unittest import mock

import aiopg
import psycopg
import psycopg2
import psycopg_pool
import sqlalchemy
import sqlalchemy.orm
from psycopg2.extensions import connection as Psycopg2Connection
from psycopg2.extras import RealDictConnection
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)

import procrastinate
from procrastinate import App
from procrastinate.connector import CallerConnection
from procrastinate.testing import InMemoryConnector

app = App(connector=procrastinate.PsycopgConnector())


@app.task
def mail(to: str) -> None: ...


class OurSession(sqlalchemy.orm.Session): ...


class AsyncpgConnection:
    """As asyncpg has them, which says nothing of its types."""

    def transaction(self, *, readonly: bool = False) -> object: ...

    def is_in_transaction(self) -> object: ...

    async def close(self) -> None: ...


class AsyncpgPool:
    async def close(self) -> None: ...


def every_synchronous_connection_is_one(
    by_psycopg2: Psycopg2Connection,
    by_psycopg2_extras: RealDictConnection,
    by_psycopg: psycopg.Connection,
    by_psycopg_with_rows: psycopg.Connection[dict[str, object]],
    connection: sqlalchemy.Connection,
    session: sqlalchemy.orm.Session,
    ours: OurSession,
    scoped: sqlalchemy.orm.scoped_session[OurSession],
) -> None:
    mail.configure(connection=by_psycopg2).defer(to="ann")
    mail.configure(connection=psycopg2.connect("")).defer(to="ann")
    mail.configure(connection=by_psycopg2_extras).defer(to="ann")
    mail.configure(connection=by_psycopg).defer(to="ann")
    mail.configure(connection=by_psycopg_with_rows).defer(to="ann")
    app.job_manager.list_jobs(connection=connection)
    app.job_manager.cancel_job_by_id(1, connection=session)
    app.job_manager.get_job(1, connection=ours)
    app.configure_task("mail", connection=scoped).defer(to="ann")


def every_asynchronous_connection_is_one(
    by_aiopg: aiopg.Connection,
    by_psycopg: psycopg.AsyncConnection,
    by_asyncpg: AsyncpgConnection,
    connection: AsyncConnection,
    session: AsyncSession,
    scoped: async_scoped_session[AsyncSession],
) -> None:
    connections: list[CallerConnection] = [
        *(by_aiopg, by_psycopg, by_asyncpg, connection, session, scoped),
    ]
    mail.configure(connection=connections[0])
    mail.configure(connection=None)


def so_is_one_in_memory_and_a_mock(connector: InMemoryConnector) -> None:
    with connector.transaction() as connection:
        mail.configure(connection=connection).defer(to="ann")
    mail.configure(connection=mock.MagicMock()).defer(to="ann")


def nothing_else_is_one(
    pool: psycopg_pool.ConnectionPool,
    pool_of_asyncpg: AsyncpgPool,
    pool_of_aiopg: aiopg.Pool,
    cursor: psycopg.Cursor,
    engine: sqlalchemy.Engine,
    async_engine: AsyncEngine,
    factory: async_sessionmaker[AsyncSession],
) -> None:
    app.job_manager.list_jobs(connection=pool)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.job_manager.list_jobs(connection=pool_of_asyncpg)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.job_manager.list_jobs(connection=pool_of_aiopg)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.job_manager.list_jobs(connection=cursor)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.job_manager.list_jobs(connection=engine)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.job_manager.list_jobs(connection=async_engine)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.job_manager.list_jobs(connection=factory)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.job_manager.list_jobs(connection="postgresql://")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
