"""Fixtures for tests on a real database: an app on aiopg, and what looks into its tables."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg2
import pytest
from copies import Copies
from one_server import runs_on_one_server
from psycopg2.extensions import parse_dsn

import procrastinate
from procrastinate.drive import Flow, Script
from procrastinate.model.partitions import MANY
from procrastinate.storage import distributing
from procrastinate.storage.partitioning import into_partitions
from procrastinate_embedded import Server

#: With this set to 64, the databases of tests are like distributed ones: `nox -s partitions`.
PARTITIONS = int(os.environ.get("PROCRASTINATE_TEST_PARTITIONS") or 1)
#: Leads to a database on a coordinator of a Citus cluster. With it, the databases of tests are
#: schemas there, whose jobs are distributed: `nox -s citus`.
CLUSTER = os.environ.get("PROCRASTINATE_TEST_CITUS_DSN", "")
if CLUSTER:
    PARTITIONS = MANY

    @pytest.fixture(scope="session")
    def schemas() -> Iterator[Schemas]:
        schemas = Schemas()
        yield schemas
        schemas.drop()

    @pytest.fixture
    def procrastinate_dsn(schemas: Schemas) -> str:
        """The way to a schema of the cluster, which is the search_path."""
        return schemas.take()

else:

    @pytest.fixture(scope="session")
    def copies(procrastinate_server: Server) -> Iterator[Copies]:
        copies = Copies(procrastinate_server.dsn, make_tables)
        yield copies
        copies.drop()

    @pytest.fixture
    def procrastinate_dsn(
        procrastinate_server: Server, copies: Copies, request: pytest.FixtureRequest
    ) -> Iterator[str]:
        """A new database: an empty one, or with the tables if the test asks for `dsn`."""
        has_tables = "dsn" in request.fixturenames
        with copies.copy() if has_tables else procrastinate_server.database() as dsn:
            yield dsn


#: A test that failed may have left a transaction open, for which the next one would wait for ever.
END_OTHERS = """
select pg_terminate_backend(pid)
from (select distinct pid from pg_locks
    join pg_database on pg_database.oid = database and datname = current_database()
    join pg_class on pg_class.oid = relation
    where relnamespace = %(name)s::regnamespace and pid <> pg_backend_pid()) as other
"""


#: Else asyncpg's first look at the types of arrays takes seconds, on each connection.
LETS_ASYNCPG_BEGIN = "citus.override_table_visibility"


#: Until the connection is closed.
ALONE = "select pg_advisory_lock(7238463503)"


class Schemas:
    """A schema of the cluster that tests use one after the other, or a new one.

    To distribute the jobs takes longer than most tests. So the tables are emptied instead, unless a
    test has left anything else behind.
    """

    def __init__(self) -> None:
        self._name = ""
        self._left: list[Any] = []

    def take(self) -> str:
        """Return the way to tables without rows, or to a new schema."""
        if self._left and self._objects() == self._left:
            tables = [name for name, kind in self._left if kind == "r"]
            kept = ("procrastinate_settings", "procrastinate_migrations")
            self._run(END_OTHERS)
            # TRUNCATE would make some thousand files for the shards: 2.6 s instead of 1.5.
            self._run(";".join(f"delete from {each}" for each in tables if each not in kept))
            self._run("select setval('procrastinate_workers_id_seq', 1, false)")
        else:
            self.drop()
            self._name = f"procrastinate_{secrets.token_hex(6)}"
            self._run(f"create schema {self._name}")
            self._left = []
        way = parse_dsn(CLUSTER)
        return (
            f"postgresql://{way['user']}@{way['host']}:{way['port']}/{way['dbname']}"
            f"?options=-csearch_path%3D{self._name}%20-c{LETS_ASYNCPG_BEGIN}%3Doff"
        )

    @property
    def is_new(self) -> bool:
        """Whether the schema is empty."""
        return not self._left

    def note(self) -> None:
        """Note what is in the schema, before a test."""
        self._left = self._objects()

    def drop(self) -> None:
        """Drop the schema."""
        if self._name:
            self._run(END_OTHERS)
            # One process of a run after the other: two at once can be a deadlock in Citus.
            self._run(ALONE, f"drop schema if exists {self._name} cascade")

    def _objects(self) -> list[Any]:
        found = self._run(
            "select relname, relkind::text from pg_class"
            " where relnamespace = %(name)s::regnamespace"
            " union all select indexdef, 'd' from pg_indexes where schemaname = %(name)s"
            " union all select pg_get_functiondef(oid), 'f' from pg_proc"
            " where pronamespace = %(name)s::regnamespace"
            " union all select tgname, 't' from pg_trigger join pg_class as of on of.oid = tgrelid"
            " where relnamespace = %(name)s::regnamespace"
            " union all select conname || pg_get_constraintdef(oid), 'c' from pg_constraint"
            " where connamespace = %(name)s::regnamespace"
            " union all select concat_ws(' ', relname, relpersistence, relrowsecurity, attname,"
            " attnotnull, atthasdef), 'a'"
            " from pg_attribute join pg_class as of on of.oid = attrelid"
            " where relnamespace = %(name)s::regnamespace and relkind = 'r' and attnum > 0"
            " union all select polname, 'p' from pg_policy join pg_class as of on of.oid = polrelid"
            " where relnamespace = %(name)s::regnamespace order by 1, 2"
        )
        if ("procrastinate_migrations", "r") in found:
            found += self._run("select version::text, 'm' from procrastinate_migrations order by 1")
        return found

    def _run(self, *statements: str) -> list[Any]:
        connection = psycopg2.connect(CLUSTER, options=f"-c search_path={self._name or 'public'}")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                for each in statements:
                    cursor.execute(each, {"name": self._name})
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@pytest.fixture
def dsn(
    procrastinate_dsn: str,
    record_property: Callable[[str, object], None],
    request: pytest.FixtureRequest,
) -> Iterator[str]:
    """A new database with procrastinate's tables."""
    if CLUSTER:
        schemas = request.getfixturevalue("schemas")
        if schemas.is_new:
            make_tables(procrastinate_dsn)
        schemas.note()
    elif not request.getfixturevalue("copies").has(procrastinate_dsn):
        make_tables(procrastinate_dsn)
    yield procrastinate_dsn
    if PARTITIONS > 1:
        record_property(USED, used_partitions(procrastinate_dsn))


def make_tables(dsn: str) -> None:
    """Make procrastinate's tables."""
    with procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open() as app:
        app.schema_manager.apply_schema()
        if PARTITIONS > 1:
            app._gateway.run(like_a_distributed_one(), transaction=True)
        if CLUSTER:  # without the check of the schema, which sees the other default
            app._gateway.run(distributing._distribute(), transaction=True)


def like_a_distributed_one() -> Flow[None]:
    """Let jobs go to many partitions.

    Those that a test inserts by hand are of partition 0, and older ones if their ids are small.
    """
    yield Script("older ids", "select setval('{schema}.procrastinate_jobs_id_seq', 1000)")
    yield from into_partitions()
    yield Script("by hand", "alter table {schema}.procrastinate_jobs alter partition set default 0")


#: What a cluster refuses as an internal error.
REFUSED = (
    "triggers are not supported on distributed tables",
    "cannot execute ALTER TABLE command involving partition column",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test in a cluster if that refuses SQL of the test's own, such as a trigger.

    What it refuses of ours is no driver's error, and fails.
    """
    report = yield
    error = None if call.excinfo is None else call.excinfo.value
    if CLUSTER and (
        type(error) is psycopg2.errors.FeatureNotSupported
        or any(each in str(error) for each in REFUSED)
    ):
        said = str(error).splitlines()[0]
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: its own SQL is refused: {said}")
    return report


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
ORDINARY = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
TOO_FEW = 90  # the exit code of a whole run that was not one: no second look at some tests mends it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With many partitions, leave out what needs no such database, or makes no sense there."""
    if PARTITIONS == 1:
        return
    chosen = [
        item
        for item in items
        if "dsn" in getattr(item, "fixturenames", ())
        and item.get_closest_marker("one_partition") is None
        and not (CLUSTER and runs_on_one_server(item.nodeid))
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
def removals(query: Callable[..., list[tuple[Any, ...]]]) -> Callable[[str], Callable[[], int]]:
    """Let the server end the connection that first removes a row of a table.

    What is returned says how many rows were to be removed so far.
    """

    def counted_in(table: str) -> Callable[[], int]:
        query("create sequence removals")
        query(
            "create function end_the_first() returns trigger language plpgsql as $$ begin"
            " if nextval('removals') = 1 then perform pg_terminate_backend(pg_backend_pid());"
            " end if; return old; end $$"
        )
        query(
            f"create trigger end_the_first before delete on {table} for each row"
            " execute function end_the_first()"
        )
        return lambda: int(query("select last_value from removals")[0][0])

    return counted_in


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
        if exitstatus in ORDINARY and (passed < AT_LEAST or len(used) < LEAST_USED):
            session.exitstatus = TOO_FEW


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
