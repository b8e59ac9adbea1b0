"""The kit finds what is wrong with a connector, and blames nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from faults import GROUPS

HERE = Path(__file__).parent
SUPPORT = HERE.parents[2] / "tests" / "support"  # for the repository's own conftest.py
_OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR) \S+?::Test(\w+)::(\w+)", re.MULTILINE)


def run_suites(faults: Iterable[str], dsn: str) -> str:
    """Return what pytest says of the suites for broken connectors."""
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-rA", "-p", "no:cacheprovider"),
        *("--rootdir", str(HERE), "-c", os.devnull, str(HERE / "broken_suites.py")),
    ]
    environment = {
        **os.environ,
        "PROCRASTINATE_TEST_DSN": dsn,
        "PROCRASTINATE_TESTKIT_FAULTS": " ".join(faults),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(SUPPORT), os.environ.get("PYTHONPATH", "")]),
    }
    # Not among the variables of the outer run: its workers, options and plugins are its own. Nor
    # is it measured: there are many of it, and what it covers the conformance tests cover.
    for name in [name for name in environment if name.startswith(("PYTEST_", "COVERAGE_"))]:
        del environment[name]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    return result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("group", GROUPS)
def test_kit_finds_the_faults(group: str, procrastinate_dsn: str) -> None:
    """For each fault exactly the behaviours that it breaks fail, of those that are near it."""
    faults = GROUPS[group]
    output = run_suites(faults, procrastinate_dsn)
    passed: dict[str, set[str]] = {fault: set() for fault in faults}
    found_by: dict[str, set[str]] = {fault: set() for fault in faults}
    for outcome, fault, behaviour in _OUTCOME.findall(output):
        (passed if outcome == "PASSED" else found_by)[fault].add(behaviour)
    assert found_by == {name: set(fault.found_by) for name, fault in faults.items()}, output[-9000:]
    assert [fault for fault in faults if not passed[fault] - found_by[fault]] == []


def test_kit_says_which_rule_was_broken(procrastinate_dsn: str) -> None:
    output = run_suites(["BindTakesAnything"], procrastinate_dsn)
    assert "broken: rule 4 of procrastinate.connector: ``bind`` gives an executor" in output
