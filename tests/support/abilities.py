"""What each connector can do, told by tests: writes the tables of docs/connectors.md.

Each cell names a test, and says how it ended. As a plugin of pytest this runs exactly those tests
and writes the page at the end (``nox -s matrix``):

    pytest -p abilities --write-abilities

A cell for which there is no test says so.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "connectors.md"
ROUTES = "tests/pgbouncer/test_routes.py"
TRANSACTIONS = "tests/test_transactions.py"
NO_TEST = "no test"
MARKERS = ("<!-- tables: begin -->", "<!-- tables: end -->")

#: Connector, where the kit's suite for it is, and whether it is asynchronous.
CONNECTORS: Mapping[str, tuple[str, str, bool]] = {
    "psycopg": ("psycopg", "TestPsycopg", True),
    "asyncpg": ("asyncpg", "TestAsyncpg", True),
    "aiopg": ("aiopg", "TestAiopg", True),
    "sqlalchemy_async over psycopg": ("sqlalchemy-async", "TestOverPsycopg", True),
    "sqlalchemy_async over asyncpg": ("sqlalchemy-async", "TestOverAsyncpg", True),
    "psycopg_sync": ("psycopg", "TestSyncPsycopg", False),
    "psycopg2": ("psycopg2", "TestPsycopg2", False),
    "sqlalchemy over psycopg": ("sqlalchemy", "TestOverPsycopg", False),
    "sqlalchemy over psycopg2": ("sqlalchemy", "TestOverPsycopg2", False),
}
#: What apps take as a connector, in the order of the table of connections.
OF_APPS = (
    *("psycopg", "asyncpg", "aiopg", "sqlalchemy_async"),
    *("psycopg_sync", "psycopg2", "sqlalchemy"),
)
#: Tests that show that something is refused, where the others show that it is done.
NO_WORKER = "test_a_worker_is_refused"
NO_LISTEN = "test_listening_through_a_pooler_is_refused"
REFUSED = (NO_WORKER, NO_LISTEN)


def kit(connector: str, test: str) -> str:
    package, suite, _ = CONNECTORS[connector]
    return f"packages/connector-{package}/tests/test_conformance.py::{suite}::{test}"


def abilities(connector: str) -> dict[str, str | None]:
    """Return the test behind each cell of a connector's row, or None."""
    is_async = CONNECTORS[connector][2]
    half = "async" if is_async else "sync"
    pool = {"psycopg": "tuples", "aiopg": "tuples", "psycopg2": "tuples", "asyncpg": "plain"}
    pools = pool.get(CONNECTORS[connector][0], "engine")
    worker = f"{ROUTES}::test_a_worker_runs_jobs[{connector}-direct]"
    refused = f"{ROUTES}::{NO_WORKER}[{connector}]"
    hears = kit(connector, "test_listening_hears_of_deferred_jobs[async]")
    return {
        "defer": kit(connector, "test_defer_stores_a_job_as_it_was_given[sync]"),
        "worker": worker if is_async else refused,
        "LISTEN": hears if is_async else None,
        "fork": kit(connector, f"test_forks_give_the_child_its_own_connections[{half}]"),
        "threads": kit(connector, "test_threads_share_a_connector[sync]"),
        "pools of yours": kit(connector, f"test_foreign_pools_are_used[{half}-{pools}]"),
    }


def behind(connector: str, route: str) -> dict[str, str | None]:
    """Return the same for a way through PgBouncer."""
    tests = {
        "defer": "test_a_plain_call_defers",
        "worker": "test_a_worker_runs_jobs",
        "LISTEN through it": NO_LISTEN,
        "hears by a direct connection": "test_a_waiting_worker_hears_of_jobs",
        "looks without one": "test_a_waiting_worker_without_a_direct_connection_looks_for_jobs",
    }
    is_async = CONNECTORS[connector][2]
    return {
        column: f"{ROUTES}::{test}[{connector}-{route}]" if is_async or column == "defer" else None
        for column, test in tests.items()
    }


def binding(connection: str) -> dict[str, str | None]:
    """Return the same for a connection of the application's, with each connector of the app."""
    test = f"{TRANSACTIONS}::test_a_transaction_decides_about_jobs"
    return {each: f"{test}[{connection}, {each}, commit]" for each in OF_APPS}


def tables() -> dict[str, dict[str, dict[str, str | None]]]:
    """Return all cells: title of the table, row, column, test."""
    from callers import KINDS

    return {
        "What they can": {each: abilities(each) for each in CONNECTORS},
        "Through PgBouncer in session mode": {each: behind(each, "session") for each in CONNECTORS},
        "Through PgBouncer in transaction mode": {
            each: behind(each, "transaction") for each in CONNECTORS
        },
        "Through PgBouncer with one connection to the server": {
            each: behind(each, "one_connection") for each in CONNECTORS
        },
        "Your connection, and the connector of the app": {each: binding(each) for each in KINDS},
    }


def named() -> list[str]:
    """Return every test that stands behind a cell, each once."""
    cells = [
        test
        for rows in tables().values()
        for columns in rows.values()
        for test in columns.values()
        if test
    ]
    return sorted(set(cells))  # packages first: one has a folder `tests` with a module of helpers


def cell(test: str | None, outcomes: Mapping[str, str]) -> str:
    if test is None:
        return NO_TEST
    outcome = outcomes.get(test, "not run")
    if outcome == "passed":
        return "refused" if any(each in test for each in REFUSED) else "yes"
    return outcome


def table(rows: Mapping[str, Mapping[str, str | None]], outcomes: Mapping[str, str]) -> str:
    columns = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row, cells in rows.items():
        said = [cell(cells[column], outcomes) for column in columns]
        lines.append(f"| {row} | {' | '.join(said)} |")
    return "\n".join(lines)


def said_of(columns: Mapping[str, str | None]) -> str:
    """Return the tests behind a row, as a list."""
    return "\n".join(f"- {column}: `{test}`" for column, test in columns.items() if test)


def versions() -> str:
    names = ("psycopg", "asyncpg", "aiopg", "psycopg2-binary", "sqlalchemy")
    found = [f"{each} {metadata.version(each)}" for each in names]
    return f"Python {platform.python_version()}, {', '.join(found)}, {pgbouncer()}"


def pgbouncer() -> str:
    try:
        said = subprocess.run(
            ["/usr/sbin/pgbouncer", "--version"], capture_output=True, text=True, check=True
        )
    except OSError:
        return "no PgBouncer"
    return said.stdout.partition("\n")[0]


def generated(outcomes: Mapping[str, str]) -> str:
    """Return what stands between the markers of the page."""
    parts = [f"The run of {datetime.now(UTC):%Y-%m-%d} (UTC): {versions()}."]
    for title, rows in tables().items():
        first = next(iter(rows))
        parts += [f"## {title}", table(rows, outcomes)]
        parts += [f"The tests behind the row of {first}:", said_of(rows[first])]
    return "\n\n".join(parts)


def write(outcomes: Mapping[str, str]) -> None:
    """Put the outcomes of a run into the page."""
    before, _, rest = PAGE.read_text().partition(MARKERS[0])
    after = rest.partition(MARKERS[1])[2]
    PAGE.write_text(f"{before}{MARKERS[0]}\n\n{generated(outcomes)}\n\n{MARKERS[1]}{after}")


def rows_of(page: str) -> list[str]:
    """Return the first cells of all tables of a page."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [line.split("|")[1].strip() for line in lines]


# --- The plugin ---


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-abilities", action="store_true", help="run what the page names")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--write-abilities") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(), "abilities-writer")


class Writer:
    """Notes how each test ended, and writes the page at the end of the run."""

    def __init__(self) -> None:
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            known = self._outcomes.get(report.nodeid)
            if known in {None, "passed"}:
                self._outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        write(self._outcomes)


def main(tests: Iterable[str]) -> None:
    """Print the tests, one on a line."""
    print(*tests, sep="\n")


if __name__ == "__main__":
    main(named())
