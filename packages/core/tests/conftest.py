"""Fixtures for tests on a real database: an app on aiopg, and what looks into its tables."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate.drive import Flow, Script
from procrastinate.storage.partitioning import into_partitions

#: With this set to 64, the databases of tests are like distributed ones: `nox -s partitions`.
PARTITIONS = int(os.environ.get("PROCRASTINATE_TEST_PARTITIONS") or 1)


@pytest.fixture
def dsn(procrastinate_dsn: str, record_property: Callable[[str, object], None]) -> Iterator[str]:
    """A new database with procrastinate's tables."""
    with procrastinate.App(
        connector=procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
    ).open() as app:
        app.schema_manager.apply_schema()
        if PARTITIONS > 1:
            app._gateway.run(like_a_distributed_one(), transaction=True)
    yield procrastinate_dsn
    if PARTITIONS > 1:
        record_property(USED, used_partitions(procrastinate_dsn))


def like_a_distributed_one() -> Flow[None]:
    """Let jobs go to many partitions.

    Those that a test inserts by hand are of partition 0, and older ones if their ids are small.
    """
    yield Script("older ids", "select setval('{schema}.procrastinate_jobs_id_seq', 1000)")
    yield from into_partitions()
    yield Script("by hand", "alter table {schema}.procrastinate_jobs alter partition set default 0")


def used_partitions(dsn: str) -> list[int]:
    """Return the partitions in which there are jobs, if there is anything left to ask."""
    try:
        connection = psycopg2.connect(dsn)
    except psycopg2.Error:
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute("select distinct partition from procrastinate_jobs")
            return [row[0] for row in cursor.fetchall()]
    except psycopg2.Error:
        return []
    finally:
        connection.close()


USED = "used partitions"
#: How many tests pass in a whole run, at least. Its jobs lie in most of the partitions.
AT_LEAST = int(os.environ.get("PROCRASTINATE_TEST_PARTITIONS_AT_LEAST") or 0)
LEAST_USED = 40


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With many partitions, leave out what needs no such database, or makes no sense there."""
    if PARTITIONS == 1:
        return
    chosen = [
        item
        for item in items
        if "dsn" in getattr(item, "fixturenames", ())
        and item.get_closest_marker("one_partition") is None
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


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

    async def wait(condition: Callable[[], object], seconds: float = 30.0) -> None:
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


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let a whole run fail if it was not about many partitions after all."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if AT_LEAST and reporter and not hasattr(session.config, "workerinput"):
        passed, used = on_many_partitions(reporter)
        if exitstatus == 0 and (passed < AT_LEAST or len(used) < LEAST_USED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def on_many_partitions(reporter: pytest.TerminalReporter) -> tuple[int, set[int]]:
    """Return how many tests have passed, and in which partitions their jobs were."""
    done = [each for some in reporter.stats.values() for each in some]
    used = [
        partition
        for each in done
        for name, value in getattr(each, "user_properties", ())
        if name == USED
        for partition in value
    ]
    return len(reporter.getreports("passed")), set(used)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have reported."""
    if PARTITIONS > 1:
        passed, used = on_many_partitions(terminalreporter)
        terminalreporter.write_line(
            f"on {PARTITIONS} partitions, {len(used)} of them with jobs (at least {LEAST_USED}):"
            f" {passed} tests passed (at least {AT_LEAST})"
        )
    for outcome in ("passed", "failed", "error"):
        for done in terminalreporter.getreports(outcome):
            for name, line in getattr(done, "user_properties", ()):
                if name == REPORTED and getattr(done, "when", None) == "call":
                    terminalreporter.write_line(f"{done.nodeid}: {line}")
