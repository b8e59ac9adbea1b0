"""What the tests see of the shell that started them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import not_inherited

ROOT = Path(__file__).parents[1]
#: How pytest begins: with the top conftest.py.
STARTS = "import sys; sys.path[:0] = ['tests/support', '.']; import conftest; "


def test_the_tests_see_nothing_of_the_callers_taste():
    assert not_inherited(os.environ) == []


def test_the_tests_hear_ctrl_c_also_in_a_run_in_the_background():
    """Where the shell ignores SIGINT for them; so do the programs that they start."""
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run(
        ["bash", "-c", "trap '' INT; exec \"$@\"", "-", sys.executable, "-c", STARTS + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "True\n"


def test_what_decides_where_things_are_is_inherited():
    kept = ["PATH", "HOME", "TMPDIR", "PGHOST", "PROCRASTINATE_TEST_DSN", "COVERAGE_FILE"]
    assert not_inherited(kept) == []


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONUNBUFFERED": "1"}, {"LC_ALL": "C"}, {"TERM": "xterm"}, {"NO_COLOR": "1"}],
    ids=str,
)
def test_a_pytest_that_is_started_by_hand_drops_them_too(variables: dict[str, str]):
    """Through the top conftest.py, whose import is the first thing that pytest does."""
    code = f"import os; print(sorted(os.environ.keys() & {set(variables)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", STARTS + code],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"
