"""Every example of the README pages and of the documentation runs as it is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg2.extensions
import pytest
import snippets

ROOT = Path(__file__).parents[1]

#: libpq's environment variable for each parameter of a DSN.
VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
}


def pages() -> list[str]:
    """Return the pages that have something to run, relative to the top folder."""
    found = [ROOT / "README.md", *ROOT.glob("packages/*/README.md"), *ROOT.glob("docs/**/*.md")]
    return sorted(str(page.relative_to(ROOT)) for page in found if has_something_to_run(page))


def has_something_to_run(page: Path) -> bool:
    if not page.exists():
        return False
    try:
        return any(block.runs for block in snippets.parse(page.read_text("utf-8")))
    except snippets.SnippetError:
        return True


def environment(dsn: str) -> dict[str, str]:
    """Return a reader's environment: libpq's variables lead to the server, nothing else is set."""
    bin_folder = str(Path(sys.executable).parent)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "PROCRASTINATE_", "PYTEST_"))
    }
    server = {VARIABLES[name]: value for name, value in psycopg2.extensions.parse_dsn(dsn).items()}
    path = os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)])
    return {**kept, **server, "PATH": path}


@pytest.mark.timeout(320)
@pytest.mark.parametrize("page", pages())
def test_examples(page: str, tmp_path: Path, procrastinate_dsn: str):
    process = subprocess.Popen(
        [sys.executable, snippets.__file__, str(ROOT / page)],
        cwd=tmp_path,
        env=environment(procrastinate_dsn),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"{page} was still running after 300 s:\n{output}")
    assert process.returncode == 0, output
