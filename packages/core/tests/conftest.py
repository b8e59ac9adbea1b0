"""Fixtures for tests on a real database: an app on aiopg, and what looks into its tables."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg2
import pytest

import procrastinate


@pytest.fixture
def dsn(procrastinate_dsn: str) -> str:
    """A new database with procrastinate's tables."""
    with procrastinate.App(
        connector=procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
    ).open() as app:
        app.schema_manager.apply_schema()
    return procrastinate_dsn


@pytest.fixture
def sync_app(dsn: str) -> Iterator[procrastinate.App]:
    """An open app on psycopg2."""
    with procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open() as app:
        yield app


@pytest.fixture
async def app(dsn: str) -> AsyncIterator[procrastinate.App]:
    """An open app on aiopg."""
    async with procrastinate.App(
        connector=procrastinate.AiopgConnector(dsn=dsn)
    ).open_async() as app:
        yield app


@pytest.fixture
def query(procrastinate_dsn: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Run SQL on a connection of its own, which no simulated outage ends; commit each statement."""
    connection = psycopg2.connect(procrastinate_dsn, application_name="test")
    connection.autocommit = True

    def run(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    yield run
    connection.close()


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Wait until a condition holds, looking often; fail after ``seconds``."""

    async def wait(condition: Callable[[], object], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def working() -> Callable[..., Any]:
    """Run a worker in the background for the length of a block, and stop it gracefully."""

    @asynccontextmanager
    async def run(app: procrastinate.App, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(app.run_worker_async(install_signal_handlers=False, **options))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception():
                raise task.exception()  # type: ignore[misc]

    return run


REPORTED = "reported"


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say something at the end of the run, also where the test passes, and in a worker of xdist."""
    return lambda line: record_property(REPORTED, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have reported."""
    for outcome in ("passed", "failed", "error"):
        for done in terminalreporter.getreports(outcome):
            for name, line in getattr(done, "user_properties", ()):
                if name == REPORTED and getattr(done, "when", None) == "call":
                    terminalreporter.write_line(f"{done.nodeid}: {line}")
