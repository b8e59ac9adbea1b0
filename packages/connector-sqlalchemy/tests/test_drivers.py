"""What is said where a driver cannot be imported."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from procrastinate.errors import ConfigurationError
from procrastinate_sqlalchemy import drivers


def test_without_libpq_it_says_what_brings_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the package's own extra brings is there already."""

    def no_libpq(name: str) -> Any:
        raise ImportError("no pq wrapper available\n- libpq library not found")

    monkeypatch.setattr(drivers, "_loaded", {})
    monkeypatch.setattr(importlib, "import_module", no_libpq)
    with pytest.raises(
        ConfigurationError, match=r"run `pip install 'psycopg\[binary\]'`"
    ) as caught:
        drivers.driver_of(PGDialect_psycopg)
    assert "procrastinate-sqlalchemy" not in str(caught.value)
