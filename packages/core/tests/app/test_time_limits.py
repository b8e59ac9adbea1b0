"""A time limit for calls by hand, on a database that has fallen silent, or is only slow."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn
from silence import SilentProxy

import procrastinate
from procrastinate import time_limits
from procrastinate.errors import ConnectionLost, InvalidOption, PoolTimeout, QueryCanceled
from procrastinate.time_limits import time_limit

SECONDS = 0.5
#: Far above the limit, far below the time that a call would wait without: for ever.
SOON = 8.0


def _url(dsn: str) -> str:
    """A DSN of a proxy as an URL of SQLAlchemy."""
    parts = parse_dsn(dsn)
    user = ":".join(parts[key] for key in ("user", "password") if key in parts)
    options = f"?options={quote(parts['options'])}" if "options" in parts else ""
    place = f"{parts['host']}:{parts['port']}/{parts['dbname']}{options}"
    return f"postgresql+psycopg2://{user}@{place}"


CONNECTORS: dict[str, Callable[[str], Any]] = {
    "psycopg2": lambda dsn: procrastinate.Psycopg2Connector(dsn=dsn, maxconn=1),
    "psycopg_sync": lambda dsn: procrastinate.SyncPsycopgConnector(conninfo=dsn, max_size=1),
    "sqlalchemy": lambda dsn: procrastinate.SQLAlchemyPsycopg2Connector(dsn=_url(dsn)),
    "aiopg": lambda dsn: procrastinate.AiopgConnector(dsn=dsn),
    "asyncpg": lambda dsn: procrastinate.AsyncpgConnector(dsn=dsn),
    "psycopg": lambda dsn: procrastinate.PsycopgConnector(conninfo=dsn),
}
ASYNCHRONOUS = ("aiopg", "asyncpg", "psycopg")


@pytest.fixture
def proxy(dsn: str) -> Iterator[SilentProxy]:
    with SilentProxy(dsn) as proxy:
        yield proxy


@pytest.fixture
def app_of(proxy: SilentProxy) -> Callable[[str], procrastinate.App]:
    return lambda name: procrastinate.App(connector=CONNECTORS[name](proxy.dsn))


class Within:
    """Asserts that a block raises an error, soon."""

    def __init__(self, error: type[Exception]) -> None:
        self._raises = pytest.raises(error)

    def __enter__(self) -> Any:
        self._began = time.monotonic()
        return self._raises.__enter__()

    def __exit__(self, *exc: Any) -> Any:
        suppressed = self._raises.__exit__(*exc)
        assert time.monotonic() - self._began < SOON
        return suppressed


@pytest.mark.parametrize("name", CONNECTORS)
def test_a_plain_call_on_a_silent_connection_ends(
    name: str, app_of: Callable[[str], procrastinate.App], proxy: SilentProxy
) -> None:
    app = app_of(name)
    with app.open():
        job_id = app.configure_task("known").defer()
        proxy.hush()
        with Within(ConnectionLost) as caught, time_limit(SECONDS):
            app.job_manager.get_job(job_id)
        assert "time limit of 0.5 s" in str(caught.value)
        with time_limit(30):
            assert app.job_manager.get_job(job_id).id == job_id


@pytest.mark.parametrize("name", ASYNCHRONOUS)
async def test_an_asynchronous_call_on_a_silent_connection_ends(
    name: str, app_of: Callable[[str], procrastinate.App], proxy: SilentProxy
) -> None:
    app = app_of(name)
    async with app.open_async():
        job_id = await app.configure_task("known").defer_async()
        proxy.hush()
        with Within(ConnectionLost), time_limit(SECONDS):
            await app.job_manager.get_job_async(job_id)
        with time_limit(30):
            assert (await app.job_manager.get_job_async(job_id)).id == job_id


async def test_it_holds_for_plain_connectors_in_asynchronous_calls(
    app_of: Callable[[str], procrastinate.App], proxy: SilentProxy
) -> None:
    app = app_of("psycopg2")
    async with app.open_async():
        proxy.hush()
        with Within(ConnectionLost), time_limit(SECONDS):
            await app.configure_task("known").defer_async()


def test_the_calls_of_a_block_share_its_time(
    app_of: Callable[[str], procrastinate.App], proxy: SilentProxy
) -> None:
    app = app_of("psycopg2")
    with app.open(), time_limit(SECONDS):
        proxy.hush(new=True)
        with Within(ConnectionLost):
            app.configure_task("known").defer()
        with Within(ConnectionLost):  # at once: no connection is made, which would take 10 s
            app.configure_task("known").defer()


def test_the_time_of_a_block_bounds_that_of_a_block_within() -> None:
    with time_limit(5):
        outer = time_limits.current()
        with time_limit(60):
            inner = time_limits.current()
            assert inner is not None
            assert inner.left() <= 5
        assert time_limits.current() is outer
        with time_limit(1):
            shorter = time_limits.current()
            assert shorter is not None
            assert shorter.left() <= 1
    assert time_limits.current() is None


def test_the_server_ends_a_slow_statement(
    sync_app: procrastinate.App, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limits, "SERVERS_SHARE", 0.01)
    with contextlib.closing(psycopg2.connect(dsn)) as blocking:
        blocking.cursor().execute("lock table procrastinate_jobs")
        with Within(QueryCanceled), time_limit(30):
            sync_app.job_manager.list_jobs(limit=1)


def test_a_pool_that_gives_no_connection_is_not_waited_for(
    app_of: Callable[[str], procrastinate.App],
) -> None:
    app = app_of("psycopg2")
    with (
        app.open(),
        app._gateway.sync_connector().session(),
        Within(PoolTimeout),
        time_limit(2),
    ):
        app.job_manager.list_jobs(limit=1)


def test_what_goes_on_after_the_block_has_no_limit() -> None:
    async def run() -> time_limits.TimeLimit | None:
        going = asyncio.Event()

        async def look() -> time_limits.TimeLimit | None:
            await going.wait()
            return time_limits.current()

        with time_limit(5):
            task = asyncio.ensure_future(look())
            await asyncio.sleep(0)
        going.set()
        return await task

    assert asyncio.run(run()) is None


def test_the_thread_of_a_block_ends_with_it(sync_app: procrastinate.App) -> None:
    before = set(threading.enumerate())
    with time_limit(30):
        sync_app.job_manager.list_jobs(limit=1)
        [watchdog] = [
            each
            for each in threading.enumerate()
            if "time-limit" in each.name and each not in before
        ]
    watchdog.join(30)
    assert not watchdog.is_alive()


def test_a_call_that_began_as_the_block_ended_leaves_no_thread() -> None:
    limit = time_limits.TimeLimit(30)
    limit.end()
    with limit.severing():
        watchdog = limit._watchdog
        assert watchdog is not None
        assert watchdog.is_alive
    watchdog._thread.join(30)
    assert not watchdog.is_alive


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "5", None, True, 90_000])
def test_what_is_no_number_of_seconds_is_refused(seconds: Any) -> None:
    with pytest.raises(InvalidOption, match="seconds"), time_limit(seconds):
        pass
