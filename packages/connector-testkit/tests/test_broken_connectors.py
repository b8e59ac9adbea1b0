"""The kit finds what is wrong with a connector, and blames nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faults import FAULTS

HERE = Path(__file__).parent
_OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR) \S+?::TestBroken::(\w+)", re.MULTILINE)


def run_suite(fault: str, dsn: str) -> str:
    """Return what pytest says of the suite for a broken connector."""
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-rA", "-p", "no:cacheprovider"),
        *("--rootdir", str(HERE), "-c", os.devnull, str(HERE / "one_broken_connector.py")),
    ]
    environment = {
        **os.environ,
        "PROCRASTINATE_TEST_DSN": dsn,
        "PROCRASTINATE_TESTKIT_FAULT": fault,
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    # Not among the variables of the outer run: its workers, options and plugins are its own. Nor
    # is it measured: there are many of it, and what it covers the conformance tests cover.
    for name in [name for name in environment if name.startswith(("PYTEST_", "COVERAGE_"))]:
        del environment[name]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    return result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_kit_finds_the_fault(fault: str, procrastinate_dsn: str) -> None:
    """Exactly the behaviours that the fault breaks fail, of those that are near it."""
    output = run_suite(fault, procrastinate_dsn)
    outcomes = _OUTCOME.findall(output)
    found_by = {name for outcome, name in outcomes if outcome != "PASSED"}
    assert found_by == set(FAULTS[fault].found_by), output[-4000:]
    assert {name for outcome, name in outcomes if outcome == "PASSED"} - found_by != set()


def test_kit_says_which_rule_was_broken(procrastinate_dsn: str) -> None:
    output = run_suite("BindTakesAnything", procrastinate_dsn)
    assert "broken: rule 4 of procrastinate.connector: ``bind`` gives an executor" in output
