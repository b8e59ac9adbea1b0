"""pytest in a process of its own, for tests about what it says of the kit's suites."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
SUPPORT = HERE.parents[2] / "tests" / "support"  # for the repository's own conftest.py


def run_pytest(
    *args: str, dsn: str, paths: Iterable[Path] = (), seconds: float = 60, **variables: str
) -> str:
    """Return what pytest prints, on the server of ``dsn``; modules are found in ``paths`` too."""
    # Not among the variables of the outer run: its workers, options and plugins are its own. Nor
    # is it measured: there are many of it, and what it covers the conformance tests cover.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "COVERAGE_"))
    }
    found = [*map(str, (*paths, HERE, SUPPORT)), inherited.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, *args],
        env={
            **inherited,
            **variables,
            "PROCRASTINATE_TEST_DSN": dsn,
            "PYTHONPATH": os.pathsep.join(found),
        },
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return result.stdout + result.stderr
