"""Old releases of procrastinate, each in an environment of its own: see `nox -s old-releases`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

PROGRAM = Path(__file__).with_name("program.py")
RELEASES = ("0.33", "1.1", "2.15", "3.10")


class OldRelease:
    """An application of an old release, on a database of its own."""

    def __init__(self, release: str, python: Path, dsn: str) -> None:
        self.release = release
        self.dsn = dsn
        self._python = python
        self._connection = psycopg.connect(dsn, autocommit=True)

    def act(self, act: str) -> list[int]:
        """Let the application do something (see program.py); return the ids of jobs that ran."""
        done = subprocess.run(
            [self._python, "-W", "ignore", PROGRAM, self.dsn, act],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or "[]")

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(sql.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="session", params=RELEASES)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with an old release, from the index."""
    folder = tmp_path_factory.mktemp("release")
    subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", str(folder)], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [python, "-m", "pip", "install", "--quiet", f"procrastinate=={request.param}.*"]
    subprocess.run([*install, "psycopg[binary]"], check=True)
    folder.joinpath("release").write_text(request.param)
    return python


@pytest.fixture
def old(python: Path, procrastinate_dsn: str) -> Iterator[OldRelease]:
    """An application of an old release that has jobs of every kind, one of them running."""
    release = (python.parents[1] / "release").read_text()
    old = OldRelease(release, python, procrastinate_dsn)
    old.act("fill")
    old.act("die")
    old.query(  # as its worker does
        "insert into procrastinate_periodic_defers (task_name, periodic_id, defer_timestamp)"
        " values ('tick', 'often', 1795000000), ('tick', 'often', 1795000060)"
    )
    if release.startswith(("2", "3")):
        old.act("abort")
    yield old
    old.close()
