"""A schema of its own in a Citus cluster for each test: see `nox -s citus`.

``PROCRASTINATE_CITUS_DSN`` leads to a database on a coordinator, which has the extension and nodes,
with a role that may create schemas.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

import procrastinate

CLUSTER = os.environ.get("PROCRASTINATE_CITUS_DSN", "")


def pytest_configure(config: pytest.Config) -> None:
    if not CLUSTER:
        raise pytest.UsageError("set PROCRASTINATE_CITUS_DSN to a coordinator of a Citus cluster")


def executed(dsn: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run SQL on a connection of its own, and commit it."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@pytest.fixture
def empty() -> Iterator[str]:
    """The way to a new schema, which is the search_path."""
    name = f"procrastinate_{secrets.token_hex(6)}"
    executed(CLUSTER, f"create schema {name}")
    yield make_dsn(CLUSTER, options=f"-c search_path={name}")
    executed(CLUSTER, f"drop schema {name} cascade")


@pytest.fixture
def plain_app(empty: str) -> Iterator[procrastinate.App]:
    """An app with tables that are not distributed yet."""
    with procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=empty)).open() as app:
        app.schema_manager.apply_schema()
        yield app


@pytest.fixture
def app(plain_app: procrastinate.App) -> procrastinate.App:
    """An app whose jobs are distributed."""
    plain_app.schema_manager.distribute()
    return plain_app


@pytest.fixture
def query(empty: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Run SQL beside the app."""
    return lambda sql, *values: executed(empty, sql, *values)
