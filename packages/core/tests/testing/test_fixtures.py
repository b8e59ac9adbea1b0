"""The pytest fixtures, in runs of pytest of their own, as a user's project has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SHOP = """
import procrastinate

app = procrastinate.App(connector=procrastinate.AiopgConnector(host="nowhere"))
sync_app = app.with_connector(procrastinate.Psycopg2Connector(host="nowhere"))

@app.task(name="buy")
def buy(what): ...
"""


def run_pytest(folder: Path, test: str) -> str:
    """Run a test file in a folder of its own; returns what pytest said, and fails where it did."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "test_shop.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-W", "error"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_test_has_a_connector_of_its_own(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        """
import pytest
from procrastinate import App

@pytest.mark.parametrize("n", [1, 2])
def test_it_is_empty(procrastinate_connector, n):
    app = App(connector=procrastinate_connector)
    assert app.configure_task("task").defer() == 1
    assert [job.task_name for job in procrastinate_connector.jobs] == ["task"]
""",
    )
    assert "2 passed" in said


def test_apps_are_in_memory_until_the_test_ends(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        """
import pytest
from procrastinate.testing import run_jobs
from shop import app, buy, sync_app

@pytest.fixture
def jobs(procrastinate_in_memory):
    return procrastinate_in_memory(app, sync_app)

def test_in_memory(jobs):
    buy.defer(what=1)
    sync_app.configure_task("buy").defer(what=2)
    assert [job.task_kwargs for job in run_jobs(app)] == [{"what": 1}, {"what": 2}]
    assert len(jobs.jobs) == 2

def test_afterwards():
    assert type(app.connector).__name__ == "AiopgConnector"
    assert type(sync_app.connector).__name__ == "Psycopg2Connector"
""",
    )
    assert "2 passed" in said


@pytest.mark.parametrize("loaded", ["procrastinate", "asyncio", "click"])
def test_who_does_not_use_them_does_not_pay_for_them(loaded: str) -> None:
    code = f"import sys, pytest; before = {loaded!r} in sys.modules; import procrastinate_pytest;"
    code += f"assert before or {loaded!r} not in sys.modules; print(procrastinate_pytest.__file__)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
