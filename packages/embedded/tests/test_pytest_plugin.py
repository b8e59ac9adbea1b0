"""The fixtures, as another project's tests see them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from procrastinate_embedded import server

pytest_plugins = ["pytester"]

TESTS = """
import subprocess
import pytest
from procrastinate_embedded import binaries

def run(dsn, statement):
    command = [binaries() / "psql", "-XqAt", "-d", dsn, "-c", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

@pytest.mark.parametrize("number", range(6))
def test_each_database_is_empty(procrastinate_dsn, procrastinate_server, number):
    count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert run(procrastinate_dsn, count) == "0"
    run(procrastinate_dsn, "CREATE TABLE t ()")
    with open("pids", "a") as file:
        print(procrastinate_server.pid, file=file)

def test_earlier_databases_are_dropped(procrastinate_server):
    if procrastinate_server.pid is None:
        names = "SELECT count(*) FROM pg_database WHERE datname LIKE 'procrastinate\\\\_%'"
        assert run(procrastinate_server.dsn, names) == "0"
"""


@pytest.fixture
def project(
    pytester: pytest.Pytester, place: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    monkeypatch.delenv("PROCRASTINATE_TEST_DSN", raising=False)
    # Not the outer run's; nor is the inner one measured.
    for name in [name for name in os.environ if name.startswith(("PYTEST_", "COVERAGE_"))]:
        monkeypatch.delenv(name)
    pytester.makepyfile(TESTS)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> list[str]:
    result = project.runpytest_subprocess(*arguments, timeout=100)
    result.assert_outcomes(passed=7)
    return (project.path / "pids").read_text().split()


@pytest.mark.slow
def test_each_test_gets_an_empty_database_of_one_server(
    project: pytest.Pytester, leftovers: Callable[[], list[str]]
) -> None:
    assert (len(set(run(project))), leftovers()) == (1, [])


def test_all_workers_of_xdist_share_one_server(
    project: pytest.Pytester, leftovers: Callable[[], list[str]]
) -> None:
    assert (len(set(run(project, "-n", "2"))), leftovers()) == (1, [])


@pytest.mark.slow
def test_a_given_server_is_used(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(durable=False) as pg:
        monkeypatch.setenv("PROCRASTINATE_TEST_DSN", pg.dsn)
        assert set(run(project)) == {"None"}


@pytest.mark.slow
def test_the_servers_options_can_be_overridden(project: pytest.Pytester) -> None:
    project.makeconftest("""
import pytest

@pytest.fixture(scope="session")
def procrastinate_server_options():
    return {"version": 16, "durable": False}
""")
    project.makepyfile("""
def test_the_version(procrastinate_server):
    assert procrastinate_server.version == 16
""")
    project.runpytest_subprocess(timeout=100).assert_outcomes(passed=1)
