"""Every connector on every way to the server: directly, and through PgBouncer in each mode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

import procrastinate
from procrastinate import connectors
from procrastinate.connector import Notification, Query
from procrastinate.errors import ConnectionFailed
from procrastinate_connector_testkit.databases import url_for

ROUTES = ("direct", "session", "transaction", "one_connection")
POOLED = ROUTES[1:]
ENOUGH = 120  # seconds, on a machine that is busy with much else

#: How each is made from a URL, with a URL for LISTEN or None.
ASYNC: Mapping[str, Callable[[str, str | None], Any]] = {
    "psycopg": lambda url, listen: made("psycopg", conninfo=url, listen_conninfo=listen),
    "asyncpg": lambda url, listen: made("asyncpg", dsn=url, listen_dsn=listen),
    "aiopg": lambda url, listen: made("aiopg", dsn=url, listen_dsn=listen),
    **{
        f"sqlalchemy_async over {driver}": lambda url, listen, driver=driver: made(
            "sqlalchemy_async", url=with_driver(url, driver), listen_dsn=listen
        )
        for driver in ("psycopg", "asyncpg")
    },
}
SYNC: Mapping[str, Callable[[str], Any]] = {
    "psycopg_sync": lambda url: made("psycopg_sync", conninfo=url),
    "psycopg2": lambda url: made("psycopg2", dsn=url),
    **{
        f"sqlalchemy over {driver}": lambda url, driver=driver: made(
            "sqlalchemy", dsn=with_driver(url, driver)
        )
        for driver in ("psycopg", "psycopg2")
    },
    "sqlalchemy_psycopg2": lambda url: made(
        "sqlalchemy_psycopg2", dsn=with_driver(url, "psycopg2")
    ),
}


def made(name: str, **options: Any) -> Any:
    kind: Any = connectors.get(name)
    return kind(**options)


def with_driver(url: str, driver: str) -> str:
    return f"postgresql+{driver}://{url.partition('://')[2]}"


@pytest.fixture
def database(procrastinate_dsn: str) -> str:
    """The connection string of a database with the tables."""
    with procrastinate.App(
        connector=procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
    ).open() as app:
        app.schema_manager.apply_schema()
    return procrastinate_dsn


@pytest.fixture
def url(database: str, bouncers: Mapping[str, int], route: str) -> str:
    """Where the way that the test asks for begins."""
    return direct(database) if route == "direct" else through(database, bouncers[route])


def direct(dsn: str) -> str:
    read = parse_dsn(dsn)
    if read.get("host", "").startswith("/") or "host" not in read:
        return url_for(dsn, "postgresql")
    return f"postgresql://{read['user']}@{read['host']}:{read.get('port', 5432)}/{read['dbname']}"


def through(dsn: str, port: int) -> str:
    read = parse_dsn(dsn)
    return f"postgresql://{read['user']}@127.0.0.1:{port}/{read['dbname']}"


def with_task(connector: Any) -> tuple[procrastinate.App, asyncio.Queue[int]]:
    """Return an app, and the numbers that its jobs brought."""
    app = procrastinate.App(connector=connector)
    done: asyncio.Queue[int] = asyncio.Queue()

    @app.task(name="bring")
    async def bring(n: int) -> None:
        done.put_nowait(n)

    return app, done


async def work_off(app: procrastinate.App, **options: Any) -> None:
    options = {"concurrency": 5, "wait": False, "install_signal_handlers": False} | options
    await app.run_worker_async(**options)


@asynccontextmanager
async def waiting_worker(app: procrastinate.App, **options: Any) -> AsyncIterator[None]:
    worker = asyncio.ensure_future(work_off(app, wait=True, **options))
    try:
        yield
    finally:
        worker.cancel()
        await asyncio.wait([worker])


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


JOBS = "select (args ->> 'n')::integer, status::text from procrastinate_jobs order by id"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("connector", [*ASYNC, *SYNC])
def test_a_plain_call_defers(database: str, url: str, connector: str, route: str) -> None:
    app, _ = with_task(ASYNC[connector](url, None) if connector in ASYNC else SYNC[connector](url))
    with app.open():
        for n in range(8):
            app.configure_task("bring").defer(n=n)
        app.configure_task("bring").batch_defer(*({"n": n} for n in range(8, 12)))
    assert rows(database, JOBS) == [(n, "todo") for n in range(12)]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("connector", [*ASYNC, *SYNC])
async def test_a_coroutine_defers(database: str, url: str, connector: str, route: str) -> None:
    app, _ = with_task(ASYNC[connector](url, None) if connector in ASYNC else SYNC[connector](url))
    async with app.open_async():
        await asyncio.gather(*(app.configure_task("bring").defer_async(n=n) for n in range(12)))
    assert sorted(rows(database, JOBS)) == [(n, "todo") for n in range(12)]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("connector", ASYNC)
async def test_a_worker_runs_jobs(database: str, url: str, connector: str, route: str) -> None:
    app, done = with_task(ASYNC[connector](url, None))
    async with app.open_async():
        for n in range(20):
            await app.configure_task("bring").defer_async(n=n)
        await work_off(app)
    assert sorted(done.get_nowait() for _ in range(20)) == list(range(20))
    assert rows(database, JOBS) == [(n, "succeeded") for n in range(20)]


@pytest.mark.parametrize("connector", SYNC)
def test_a_worker_is_refused(database: str, connector: str) -> None:
    app, _ = with_task(SYNC[connector](direct(database)))
    with pytest.raises(procrastinate.SyncConnectorConfigurationError):
        app.run_worker(wait=False)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("connector", ASYNC)
async def test_a_waiting_worker_hears_of_jobs(
    database: str, url: str, connector: str, route: str
) -> None:
    """Through PgBouncer by a direct connection for LISTEN; it does not look by itself for long."""
    app, done = with_task(ASYNC[connector](url, None if route == "direct" else direct(database)))
    async with app.open_async(), waiting_worker(app, fetch_job_polling_interval=3600.0):
        for n in range(3):
            await app.configure_task("bring").defer_async(n=n)
            assert await asyncio.wait_for(done.get(), ENOUGH) == n


@pytest.mark.parametrize("route", POOLED)
@pytest.mark.parametrize("connector", ASYNC)
async def test_a_waiting_worker_without_a_direct_connection_looks_for_jobs(
    database: str, url: str, connector: str, route: str
) -> None:
    app, done = with_task(ASYNC[connector](url, None))
    async with app.open_async(), waiting_worker(app, fetch_job_polling_interval=0.1):
        for n in range(3):
            await app.configure_task("bring").defer_async(n=n)
            assert await asyncio.wait_for(done.get(), ENOUGH) == n


@pytest.mark.parametrize("route", POOLED)
@pytest.mark.parametrize("connector", ASYNC)
async def test_listening_through_a_pooler_is_refused(
    database: str, url: str, connector: str, route: str
) -> None:
    """With the option to write, also in session mode: a client cannot see which mode it is.

    No LISTEN stays on a connection of the server, which the next client gets.
    """
    made = ASYNC[connector](url, None)
    await made.open_async()
    with pytest.raises(ConnectionFailed, match=f"with {listening(connector)}="):
        async with made.listen(["kit"]):
            pytest.fail("it listens")
    assert rows(url, "select pg_listening_channels()") == []
    async with made.session_async() as session:
        assert await session.execute(Query("one", "select 1")) == [(1,)]
    await made.close_async()


@pytest.mark.parametrize("route", POOLED)
@pytest.mark.parametrize("connector", ASYNC)
async def test_a_direct_connection_listens_beside_a_pooler(
    database: str, url: str, connector: str, route: str
) -> None:
    made = ASYNC[connector](url, direct(database))
    await made.open_async()
    async with made.listen(["kit"]) as heard:
        async with made.session_async() as session:
            await session.execute(Query("tell", "select pg_notify('kit', 'news')"))
        assert await asyncio.wait_for(anext(heard), ENOUGH) == Notification("kit", "news")
    await made.close_async()


def listening(connector: str) -> str:
    """Return the option that names a direct connection."""
    return "listen_conninfo" if connector == "psycopg" else "listen_dsn"


@pytest.mark.parametrize("route", ["one_connection"])
@pytest.mark.parametrize("connector", ASYNC)
async def test_nothing_is_kept_on_a_connection_of_many_clients(
    database: str, url: str, connector: str, route: str
) -> None:
    """No plan and no setting: the next client gets the same connection to the server."""
    kept = "select name, statement from pg_prepared_statements"
    settings = "select name, setting from pg_settings where source = 'session' order by name"
    before = rows(url, settings)
    app, _ = with_task(ASYNC[connector](url, None))
    async with app.open_async():
        for n in range(10):
            await app.configure_task("bring").defer_async(n=n)
        await work_off(app)
        assert rows(url, kept) == []
    assert rows(url, settings) == before
    assert rows(database, JOBS) == [(n, "succeeded") for n in range(10)]


@pytest.mark.parametrize("route", ["transaction"])
@pytest.mark.parametrize("connector", ASYNC)
async def test_who_waits_for_a_job_without_a_direct_connection_looks_for_its_end(
    database: str, url: str, connector: str, route: str
) -> None:
    app, _ = with_task(ASYNC[connector](url, None))
    async with app.open_async():
        job_id = await app.configure_task("bring").defer_async(n=1)
        waiting_room = app._gateway.waiting_room
        wait = asyncio.ensure_future(waiting_room.until_ended_async(job_id, timeout=ENOUGH))
        while not rows(database, "select from procrastinate_waits"):
            await asyncio.sleep(0.02)
        await work_off(app)
        job = await wait
        assert job is not None
        assert job.status == "succeeded"
    assert rows(database, "select from procrastinate_waits") == []
