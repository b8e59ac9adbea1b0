"""The pytest fixtures, in a run of pytest of their own, as a user's project has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SHOP = """
import procrastinate

app = procrastinate.App(connector=procrastinate.AiopgConnector(host="nowhere"))
sync_app = app.with_connector(procrastinate.Psycopg2Connector(host="nowhere"))

@app.task(name="buy")
def buy(what): ...
"""

TESTS = """
import pytest
from procrastinate import App
from procrastinate.testing import run_jobs
from shop import app, buy, sync_app

@pytest.mark.parametrize("n", [1, 2])
def test_every_test_has_a_connector_of_its_own(procrastinate_connector, n):
    own = App(connector=procrastinate_connector)
    assert own.configure_task("task").defer() == 1
    assert [job.task_name for job in procrastinate_connector.jobs] == ["task"]

@pytest.fixture
def jobs(procrastinate_in_memory):
    return procrastinate_in_memory(app, sync_app)

def test_apps_are_in_memory(jobs):
    buy.defer(what=1)
    sync_app.configure_task("buy").defer(what=2)
    assert [job.task_kwargs for job in run_jobs(app)] == [{"what": 1}, {"what": 2}]
    assert len(jobs.jobs) == 2

def test_afterwards_they_are_not():
    assert type(app.connector).__name__ == "AiopgConnector"
    assert type(sync_app.connector).__name__ == "Psycopg2Connector"
"""


def test_the_fixtures_do_what_they_say_and_warn_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-W", "error"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_who_does_not_use_them_does_not_pay_for_them() -> None:
    code = "import sys, pytest; before = set(sys.modules); import procrastinate_pytest\n"
    code += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["procrastinate_pytest"]
