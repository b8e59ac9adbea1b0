"""Which of Django's two drivers for PostgreSQL is used, and what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from procrastinate.errors import ConfigurationError
from procrastinate_django import drivers


@pytest.mark.slow
def test_transactions_decide_on_psycopg2_too() -> None:
    """The tests of transactions, on a Django that finds no psycopg 3."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(Path(__file__).parent / "test_transactions.py")],
        env={**os.environ, "PROCRASTINATE_TEST_DJANGO": "psycopg2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_of_the_driver_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers.importlib.util, "find_spec", lambda name: None)
    for is_3, extra in ((True, "psycopg"), (False, "psycopg2")):
        monkeypatch.setattr(drivers, "uses_psycopg3", lambda is_3=is_3: is_3)
        with pytest.raises(ConfigurationError) as caught:
            drivers.driver.__wrapped__()
        assert f"`pip install 'procrastinate-django[{extra}]'`" in str(caught.value)
