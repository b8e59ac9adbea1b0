"""What the tests see of the shell that started them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from surroundings import not_inherited


def test_the_tests_see_nothing_of_the_callers_taste():
    assert not_inherited(os.environ) == []


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
    code = f"import conftest, os; print(sorted(os.environ.keys() & {set(variables)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = ['tests/support', '.']; {code}"],
        cwd=os.path.dirname(os.path.dirname(__file__)),
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"
