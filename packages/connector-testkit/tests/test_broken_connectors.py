"""The kit finds what is wrong with a connector, and blames nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from faults import GROUPS
from inner_runs import HERE, run_pytest

_OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR) \S+?::Test(\w+)::(\w+)", re.MULTILINE)


def run_suites(faults: Iterable[str], dsn: str) -> str:
    """Return what pytest says of the suites for broken connectors."""
    return run_pytest(
        *("--tb=short", "-rA", "--rootdir", str(HERE), str(HERE / "broken_suites.py")),
        dsn=dsn,
        seconds=500,
        PROCRASTINATE_TESTKIT_FAULTS=" ".join(faults),
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
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
    assert "broken: rule 4 of procrastinate.connector: A `Binder` gives an executor" in output
