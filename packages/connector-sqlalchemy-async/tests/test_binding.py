from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

import procrastinate
from procrastinate.errors import ConnectorException, InvalidOption
from procrastinate_sqlalchemy_async import SQLAlchemyAsyncConnector

Engines = Callable[..., AsyncEngine]


class OurSession(AsyncSession):
    """As applications have: found by its bases."""


@pytest_asyncio.fixture
async def app(
    new_connector: Callable[..., SQLAlchemyAsyncConnector],
) -> AsyncIterator[procrastinate.App]:
    """An app with the schema, which is not open any more: that needs no connection of its own."""
    app = procrastinate.App(connector=new_connector())
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
    yield app


async def jobs(engine: AsyncEngine) -> list[tuple[str, Any]]:
    async with engine.connect() as connection:
        query = sqlalchemy.text("select task_name, args from procrastinate_jobs order by id")
        return [tuple(row) for row in await connection.execute(query)]


async def test_a_job_goes_with_the_session_s_transaction(
    app: procrastinate.App, new_engine: Engines
) -> None:
    engine = new_engine()
    async with OurSession(engine) as session, session.begin():
        await app.configure_task("work", connection=session).defer_async(n=1)
        assert await jobs(engine) == []
    async with async_sessionmaker(engine)() as session:
        await app.configure_task("work", connection=session).defer_async(n=2)
        await session.rollback()
        await app.configure_task("work", connection=session).defer_async(n=3)
        await session.commit()
    assert await jobs(engine) == [("work", {"n": 1}), ("work", {"n": 3})]


async def test_a_savepoint_of_the_owner_s_decides_too(
    app: procrastinate.App, new_engine: Engines
) -> None:
    engine = new_engine()
    async with engine.begin() as connection:
        await app.configure_task("work", connection=connection).defer_async(n=1)
        nested = await connection.begin_nested()
        await app.configure_task("work", connection=connection).defer_async(n=2)
        await nested.rollback()
    assert await jobs(engine) == [("work", {"n": 1})]


async def test_a_batch_that_is_refused_leaves_the_transaction_as_it_was(
    app: procrastinate.App, new_engine: Engines
) -> None:
    """Its savepoint is the first statement that the connection sees."""
    engine = new_engine()
    async with AsyncSession(engine) as session, session.begin():
        locked = app.configure_task("work", connection=session, queueing_lock="one")
        with pytest.raises(procrastinate.AlreadyEnqueued):
            await locked.batch_defer_async({"n": 1}, {"n": 2})
        await app.configure_task("work", connection=session).defer_async(n=3)
    assert await jobs(engine) == [("work", {"n": 3})]


async def test_a_detached_connection_is_the_owner_s_still(
    app: procrastinate.App, new_engine: Engines
) -> None:
    engine = new_engine()
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await connection.run_sync(lambda inner: inner.detach())
        await app.configure_task("work", connection=connection).defer_async(n=1)
        await connection.commit()
    await raw.close()
    assert await jobs(engine) == [("work", {"n": 1})]


async def test_times_and_texts_are_read_as_the_owner_gets_them(
    app: procrastinate.App, new_engine: Engines, driver: str
) -> None:
    async with new_engine().connect() as connection:
        if driver == "psycopg":
            await connection.execute(sqlalchemy.text("set client_encoding = 'SQL_ASCII'"))
        await connection.execute(sqlalchemy.text("set datestyle = 'German'"))
        task = app.configure_task("work", connection=connection)
        job_id = await task.defer_async(name="é漢")
        job = await app.job_manager.get_job_async(job_id, connection=connection)
    assert (job.task_kwargs, job.deferred_at.tzinfo) == ({"name": "é漢"}, datetime.UTC)


@pytest.mark.parametrize("kind", [ValueError, ConnectionRefusedError])
async def test_what_a_listener_raises_is_its_own_error(
    app: procrastinate.App, new_engine: Engines, kind: type[Exception]
) -> None:
    """Neither are the arguments taken for refused, nor the connection for lost."""

    def listener(*_: Any) -> None:
        raise kind("of the listener's own")

    async with new_engine().connect() as connection:
        sqlalchemy.event.listen(connection.sync_connection, "after_cursor_execute", listener)
        with pytest.raises(kind, match="of the listener's own"):
            await app.configure_task("work", connection=connection).defer_async(n=1)


async def test_what_cannot_be_used_is_refused_with_a_reason(
    app: procrastinate.App, new_engine: Engines
) -> None:
    engine = new_engine()
    async with engine.connect() as connection:
        pass
    with pytest.raises(InvalidOption, match="is closed"):
        await app.configure_task("work", connection=connection).defer_async()
    with pytest.raises(InvalidOption, match="is not started"):
        await app.configure_task("work", connection=engine.connect()).defer_async()
    with pytest.raises(InvalidOption, match="has no engine of its own"):
        await app.configure_task("work", connection=AsyncSession()).defer_async()
    async with engine.connect() as connection:
        with pytest.raises(InvalidOption, match="await the _async method"):
            app.configure_task("work", connection=connection).defer()
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            await connection.execute(sqlalchemy.text("select 1 / 0"))
        with pytest.raises(ConnectorException) as caught:
            await app.configure_task("work", connection=connection).defer_async()
        assert caught.value.sqlstate == "25P02"
    assert await jobs(engine) == []
