"""Every example of the README pages and of the documentation runs as it is written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import snippets
from readers import environment

ROOT = Path(__file__).parents[1]
#: These run the kit for connectors, of which the tests of each connector are another run.
SLOW = {"docs/howto/write-a-connector.md", "packages/connector-testkit/README.md"}


def pages() -> list[Any]:
    """Return the pages that have something to run, relative to the top folder."""
    patterns = ("README.md", "packages/*/README.md", "docs/**/*.md", "examples/*/README.md")
    found = [page for pattern in patterns for page in ROOT.glob(pattern)]
    names = sorted(str(page.relative_to(ROOT)) for page in found if has_something_to_run(page))
    return [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [], id=name)
        for name in names
    ]


def has_something_to_run(page: Path) -> bool:
    if not page.exists():
        return False
    try:
        return any(block.runs for block in snippets.parse(page.read_text("utf-8")))
    except snippets.SnippetError:
        return True


@pytest.mark.timeout(320)
@pytest.mark.parametrize("page", pages())
def test_examples(page: str, tmp_path: Path, procrastinate_dsn: str):
    if page.startswith("examples/"):  # these are run in their folder
        shutil.copytree((ROOT / page).parent, tmp_path, dirs_exist_ok=True)
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


def test_the_connector_on_the_page_is_the_one_of_the_kit_s_tests() -> None:
    page = (ROOT / "docs/howto/write-a-connector.md").read_text("utf-8")
    kept = ROOT / "packages/connector-testkit/tests/pg8000_connector.py"
    shown = page.partition("name=procrastinate_pg8000.py -->\n```python\n")[2].partition("```\n")[0]
    assert shown == kept.read_text("utf-8")
    assert len(shown.splitlines()) <= 150
