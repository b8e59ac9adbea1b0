"""Runs a package's tests in an environment, and says how they ended."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from publishing.environments import Environment
from publishing.packages import ROOT

MAY_TAKE = 1800.0  # seconds
_COUNTED = re.compile(r"(\d+) (passed|failed|errors?|skipped)\b")
#: Of the test kit, the core runs; of everything else, all (conftest.py).
_KIT_IN_PART = {"PROCRASTINATE_TEST_WHOLE": ""}


@dataclass(frozen=True)
class Outcome:
    """How many tests passed, and how many did not."""

    passed: int
    failed: int

    @property
    def is_well(self) -> bool:
        return self.passed > 0 and self.failed == 0

    def __str__(self) -> str:
        if self.is_well:
            return f"{self.passed} tests"
        return f"{self.failed} of {self.passed + self.failed} tests failed"


def outcome_of(printed: str, returncode: int) -> Outcome:
    """Return what pytest's last line says. A run that breaks off has one failure at least."""
    lines = printed.strip().splitlines()
    counts = {what: int(number) for number, what in _COUNTED.findall(lines[-1] if lines else "")}
    failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    return Outcome(counts.get("passed", 0), failed or int(returncode != 0))


def tests(environment: Environment, arguments: Sequence[str]) -> Outcome:
    """Run pytest in an environment, from the top of the repository."""
    dropped = ("PYTHON", "PROCRASTINATE_", "PG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    done = subprocess.run(
        [
            *(str(environment.python), "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"),
            *("-m", "not slow", *arguments),
        ],
        cwd=ROOT,
        env={**kept, **_KIT_IN_PART},
        capture_output=True,
        text=True,
        timeout=MAY_TAKE,
        check=False,
    )
    (environment.folder / "pytest.log").write_text(done.stdout + done.stderr)
    return outcome_of(done.stdout, done.returncode)
