"""The page of the connectors' abilities has the rows that there are, and its tests exist."""

from __future__ import annotations

import os
import subprocess
import sys

import abilities
import pytest
from callers import KINDS

from procrastinate import connectors

#: What makes a connector's tests run in part; see conftest.py.
WHOLE = "PROCRASTINATE_TEST_WHOLE"


def test_every_published_connector_has_a_row() -> None:
    named = {each.partition(" ")[0] for each in abilities.CONNECTORS}
    # The older name of the one over psycopg2; and Django's, whose database is one of its settings.
    assert named == set(connectors.PUBLISHED) - {"sqlalchemy_psycopg2", "django"}
    assert set(abilities.OF_APPS) == named


def test_the_page_has_every_row() -> None:
    rows = abilities.rows_of(abilities.PAGE.read_text())
    for name in abilities.CONNECTORS:
        assert rows.count(name) >= 4
    assert set(KINDS) <= set(rows)


def test_a_cell_says_how_its_test_ended() -> None:
    refused = {f"x::{each}[y]": "passed" for each in abilities.REFUSED}
    outcomes = {"a": "passed", "b": "failed", **refused}
    said = [abilities.cell(each, outcomes) for each in [*outcomes, "c", None]]
    assert said == ["yes", "failed", "refused", "refused", "not run", "no test"]


@pytest.mark.slow
def test_the_test_of_every_cell_exists() -> None:
    """Those with PgBouncer are looked at where they run: they need the program."""
    tests = [each for each in abilities.named() if not each.startswith(abilities.ROUTES)]
    files = sorted({each.partition("::")[0] for each in tests})
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=abilities.ROOT,
        # All tests of all connectors, whichever run whole on this Python.
        env={name: each for name, each in os.environ.items() if name != WHOLE},
        capture_output=True,
        text=True,
        check=False,
    )
    collected = {line for line in found.stdout.splitlines() if "::" in line}
    assert collected, found.stdout + found.stderr
    assert [each for each in tests if each not in collected] == []
