from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

import procrastinate
from procrastinate.connector import Notification, Query
from procrastinate.errors import ConnectorException, InvalidOption
from procrastinate_sqlalchemy_async import SQLAlchemyAsyncConnector
from procrastinate_sqlalchemy_async.over_asyncpg import OverAsyncpg

from .helpers import arguments_for, url_of

Engines = Callable[..., AsyncEngine]
Connectors = Callable[..., SQLAlchemyAsyncConnector]


async def test_a_worker_runs_jobs_on_the_application_s_engine(
    new_engine: Engines, new_connector: Connectors
) -> None:
    app = procrastinate.App(connector=new_connector())
    done: list[int] = []

    @app.task
    async def work(n: int) -> None:
        done.append(n)

    engine = new_engine(pool_size=3, max_overflow=0)
    async with app.open_async(engine):
        await app.schema_manager.apply_schema_async()
        await work.batch_defer_async(*({"n": n} for n in range(20)))
        await app.run_worker_async(wait=False, concurrency=4)
    assert sorted(done) == list(range(20))
    async with engine.begin() as connection:
        query = sqlalchemy.text(
            "select count(*) from procrastinate_jobs where status = 'succeeded'"
        )
        assert await connection.scalar(query) == 20


@pytest.mark.parametrize("command", ["DISCARD ALL", "DEALLOCATE ALL"])
async def test_statements_that_the_owner_of_an_engine_takes_back_are_sent_again(
    new_engine: Engines, new_connector: Connectors, command: str
) -> None:
    """In a transaction one fails, and its connection is not used again."""
    connector = new_connector()
    await connector.open_async(new_engine(pool_size=1, max_overflow=0))
    asked = Query("any", "select %(n)s::integer", {"n": 1})
    for _ in range(3):
        async with connector.session_async() as session:
            for _ in range(8):  # psycopg prepares what comes again
                assert await session.execute(asked) == [(1,)]
            await session.execute(Query("any", command))
            assert await session.execute(asked) == [(1,)]
    with suppress(ConnectorException):
        async with connector.session_async(transaction=True) as session:
            await session.execute(asked)
            await session.execute(Query("any", "DEALLOCATE ALL"))
            await session.execute(asked)
    async with connector.session_async(transaction=True) as session:
        assert await session.execute(asked) == [(1,)]
    await connector.close_async()


async def test_connections_of_another_event_loop_are_refused(
    procrastinate_dsn: str, new_connector: Connectors, driver: str
) -> None:
    """Those that the engine's pool holds, and one given as connection=. Nothing is sent on them."""
    app = procrastinate.App(connector=new_connector())
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
    arguments = arguments_for("asyncpg", procrastinate_dsn)
    engine = create_async_engine(url_of("asyncpg"), pool_size=1, connect_args=arguments)

    async def connected() -> AsyncConnection:
        async with engine.connect() as connection:
            await connection.execute(sqlalchemy.text("select 1"))
        return await engine.connect()

    loop = asyncio.new_event_loop()
    connection = await asyncio.to_thread(loop.run_until_complete, connected())
    try:
        with pytest.raises(InvalidOption, match="made in another event loop"):
            await app.configure_task("work", connection=connection).defer_async()
        await asyncio.to_thread(loop.run_until_complete, connection.close())
        engine_app = procrastinate.App(connector=new_connector())
        with pytest.raises(InvalidOption, match=r"another event loop: `await engine\.dispose\(\)`"):
            await engine_app.open_async(engine)
    finally:
        await asyncio.to_thread(loop.run_until_complete, engine.dispose())
        loop.close()


async def test_a_worker_with_one_connection_hears_of_a_job_deferred_by_a_plain_call(
    new_connector: Connectors,
) -> None:
    """With a polling interval that is longer than the test may last."""
    app = procrastinate.App(connector=new_connector(pool_size=1, max_overflow=0))
    ran = asyncio.Event()

    @app.task
    async def work() -> None:
        ran.set()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        async with app.worker(fetch_job_polling_interval=300):
            await asyncio.to_thread(work.defer)
            async with asyncio.timeout(60):
                await ran.wait()


async def test_listening_has_a_connection_of_its_own(
    new_connector: Connectors, procrastinate_dsn: str, driver: str
) -> None:
    """Beside the pool, which has none to spare; also if it is named, as libpq or SQLAlchemy do."""
    sqlalchemy_url = url_of(driver) + procrastinate_dsn.partition("://")[2]
    small = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1, "pool_use_lifo": True}
    for arguments in (
        small,
        {"poolclass": NullPool},
        *({**small, "listen_dsn": dsn} for dsn in (procrastinate_dsn, sqlalchemy_url)),
    ):
        connector = new_connector(**arguments)
        await connector.open_async()
        async with (
            connector.session_async() as session,
            connector.listen(["kit"]) as heard,
        ):
            await session.execute(Query("n", "select pg_notify('kit', %(x)s::text)", {"x": "é"}))
            assert await anext(heard) == Notification("kit", "é")
        await connector.close_async()


async def test_a_url_of_ours_leads_to_its_database(procrastinate_dsn: str, driver: str) -> None:
    url = f"sqlalchemy-async://{procrastinate_dsn.partition('://')[2]}&driver={driver}"
    connector = SQLAlchemyAsyncConnector.from_url(url)
    await connector.open_async()
    query = Query("q", "select 'dbname=' || current_database()")
    async with connector.session_async() as session:
        ((name,),) = await session.execute(query)
    await connector.close_async()
    assert f" {name} " in repr(connector)


async def test_what_goes_through_the_engine_is_seen_by_its_listeners(
    new_engine: Engines, new_connector: Connectors
) -> None:
    engine, seen = new_engine(), []
    connector = new_connector()
    await connector.open_async(engine)

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def note(conn: object, cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    for transaction in (True, False):
        async with connector.session_async(transaction=transaction) as session:
            query = Query("a", "select %(x)s::text, 1.5::numeric", {"x": "%"}, {"jit": "off"})
            assert list(await session.execute(query)) == [("%", 1.5)]
    await connector.close_async()
    assert [text.startswith("select") for text in seen] == [True, True]


async def test_settings_are_in_force_for_their_query_only(
    new_engine: Engines, new_connector: Connectors
) -> None:
    """On our own connection and on a lent one; each query asks what the one before has left."""
    asked = Query("q", "select current_setting(%(x)s::text)", {"x": "lock_timeout"})
    settings = ({"lock_timeout": "7s"}, {"lock_timeout": "8s", "jit": "off"}, {}, {"jit": "off"})
    for engine in (None, new_engine(pool_size=1, max_overflow=0)):
        connector = new_connector(pool_size=1, max_overflow=0)
        await connector.open_async(engine)
        found = []
        for each in settings:
            async with connector.session_async() as session:
                query = Query(asked.name, asked.sql, asked.params, each)
                found += await session.execute(query)
        await connector.close_async()
        assert found == [("7s",), ("8s",), ("0",), ("0",)]


@pytest.mark.parametrize("lent", [False, True], ids=["own", "lent"])
async def test_only_plans_that_fit_all_values_are_kept(
    new_engine: Engines, new_connector: Connectors, driver: str, lent: bool
) -> None:
    """asyncpg prepares what has values. psycopg sends them within the text, and each is planned."""
    connector = new_connector()
    await connector.open_async(new_engine() if lent else None)
    kept = {"plan_cache_mode": "force_generic_plan"}
    found = {}
    for transaction in (False, True):
        for name, settings in (
            *(("kept", kept), ("others", {"enable_nestloop": "on"})),
            *(("of a defer", {"jit": "off"}), ("plain", {})),
        ):
            async with connector.session_async(transaction=transaction) as session:
                sql = "select current_setting(%(x)s::text)"
                query = Query("q", sql, {"x": "plan_cache_mode"}, settings)
                ((found[transaction, name],),) = await session.execute(query)
    await connector.close_async()
    anew = "force_custom_plan" if driver == "asyncpg" else "auto"
    expected = {"kept": "force_generic_plan", "others": anew, "of a defer": "auto", "plain": "auto"}
    assert found == {(t, name): mode for t in (False, True) for name, mode in expected.items()}


CALL_SETTINGS = {"jit": "off", "transaction_isolation": "read committed"}
PREPARED = Query("prepared", "select name, current_setting('jit') from pg_prepared_statements")


async def called(connector: SQLAlchemyAsyncConnector, number: int) -> list[Any]:
    query = Query("call", "select abs(%(n)s::integer)", {"n": number}, CALL_SETTINGS)
    async with connector.session_async() as session:
        return list(await session.execute(query))


async def prepared(connector: SQLAlchemyAsyncConnector) -> list[Any]:
    async with connector.session_async() as session:
        return list(await session.execute(PREPARED))


@pytest.mark.parametrize("driver", ["psycopg"], indirect=True)
async def test_a_call_of_a_function_is_prepared_on_our_own_engine_over_psycopg(
    new_connector: Connectors,
) -> None:
    """When it comes for the second time; one that the server has forgotten costs no job."""
    connector = new_connector(pool_size=1, max_overflow=0)
    await connector.open_async()
    assert await called(connector, -1) == [(1,)]
    assert await prepared(connector) == []
    for n in (2, 3):
        assert await called(connector, -n) == [(n,)]
    assert await prepared(connector) == [("procrastinate_call_1", "off")]
    async with connector.session_async() as session:
        await session.execute(Query("deallocate", "deallocate all"))
    for n in (1, 2):
        assert await called(connector, -n) == [(n,)]
        assert await prepared(connector) == []
    await connector.close_async()


@pytest.mark.parametrize("driver", ["psycopg"], indirect=True)
async def test_nothing_is_prepared_on_the_application_s_engine_over_psycopg(
    new_engine: Engines, new_connector: Connectors
) -> None:
    connector = new_connector()
    await connector.open_async(new_engine(pool_size=1, max_overflow=0))
    for n in range(4):
        assert await called(connector, -n) == [(n,)]
    assert [row for row in await prepared(connector) if "procrastinate" in row[0]] == []
    await connector.close_async()


async def test_a_session_of_a_generator_that_is_closed_gives_its_place_back(
    new_connector: Connectors, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing it by hand lets it wait for nothing, so the transaction ends with its connection."""
    connector = new_connector(pool_size=1, max_overflow=0, pool_timeout=60)
    await connector.open_async()

    async def rows() -> AsyncIterator[object]:
        async with connector.session_async(transaction=True) as session:
            yield await session.execute(Query("q", "select pg_backend_pid()"))

    generator = cast(AsyncGenerator[object], rows())
    first = await anext(generator)
    with pytest.raises(StopIteration):
        generator.aclose().__await__().send(None)
    async with connector.session_async() as session:
        assert await session.execute(Query("q", "select pg_backend_pid()")) != first
    await connector.close_async()
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_many_sessions_share_a_small_pool(new_connector: Connectors) -> None:
    connector = new_connector(pool_size=2, max_overflow=0, pool_timeout=60)
    await connector.open_async()

    async def one(n: int) -> int:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(connector.session_async(transaction=True))
            ((value,),) = await session.execute(Query("q", "select %(n)s::integer", {"n": n}))
            return int(value)

    assert await asyncio.gather(*map(one, range(40))) == list(range(40))
    await connector.close_async()


async def test_echo_shows_no_query_twice(
    new_engine: Engines, new_connector: Connectors, caplog: pytest.LogCaptureFixture
) -> None:
    connector = new_connector()
    engine = new_engine(echo=True)
    await connector.open_async(engine)
    with caplog.at_level(logging.INFO, "sqlalchemy.engine.Engine"):
        caplog.clear()
        async with connector.session_async(transaction=True) as session:
            await session.execute(Query("q", "select %(n)s::integer", {"n": 7}))
    await connector.close_async()
    assert [m for m in caplog.messages if m.startswith("select")] == (
        ["select $1::integer"] if engine.dialect.driver == "asyncpg" else ["select %(n)s::integer"]
    )


@pytest.mark.parametrize(
    "said, encoding", [("UTF8", "UTF8"), ("'utf-8'", "UTF8"), ("LATIN1", "LATIN1"), (None, None)]
)
def test_an_encoding_is_known_however_a_pooler_repeats_it(
    said: str | None, encoding: str | None
) -> None:
    raw = SimpleNamespace(get_settings=lambda: SimpleNamespace(client_encoding=said))
    assert OverAsyncpg(raw, own=False, direct=False).encoding == encoding


async def test_behind_a_pooler_no_statement_gets_a_name(
    driver: str,
    new_connector: Callable[..., SQLAlchemyAsyncConnector],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not the first one either, SQLAlchemy's own: it may be another client's name there."""
    named: list[str] = []
    unique = asyncpg.Connection._get_unique_id

    def noted(self: Any, prefix: str) -> str:
        named.append(prefix)
        return str(unique(self, prefix))

    monkeypatch.setattr(asyncpg.Connection, "_get_unique_id", noted)
    direct = new_connector()
    await direct.open_async()
    await direct.close_async()
    assert ("stmt" in named) == (driver == "asyncpg")  # where it may be
    named.clear()
    monkeypatch.setattr(asyncpg.Connection, "get_server_pid", lambda _: -1)
    connector = new_connector()
    await connector.open_async()
    async with connector.session_async() as session:
        await session.execute(Query("q", "select %(n)s::integer", {"n": 1}))
    await connector.close_async()
    assert named == []
