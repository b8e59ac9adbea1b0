"""Fixtures: a server for the whole test run, and an empty database for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from procrastinate_embedded import Server


@pytest.fixture(scope="session")
def procrastinate_server_options() -> dict[str, Any]:
    """The arguments of `server`, to be overridden in a conftest.py; not durable by default."""
    return {"durable": False}


@pytest.fixture(scope="session")
def procrastinate_server(procrastinate_server_options: dict[str, Any]) -> Iterator[Server]:
    """The server of the test run: PROCRASTINATE_TEST_DSN's, else a temporary one.

    All workers of pytest-xdist share one.
    """
    from procrastinate_embedded import servers

    given = servers.given_server()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if given is not None:
        yield given
    elif run is None or procrastinate_server_options.get("directory") is not None:
        with servers.server(**procrastinate_server_options) as server:
            yield server
    else:
        options = {k: v for k, v in procrastinate_server_options.items() if k != "directory"}
        with servers.shared_temporary_server(run, **options) as server:
            yield server


@pytest.fixture
def procrastinate_dsn(procrastinate_server: Server) -> Iterator[str]:
    """The DSN of a new empty database, dropped after the test."""
    with procrastinate_server.database() as dsn:
        yield dsn
