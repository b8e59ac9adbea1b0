"""Where the kit finds a server, and the databases that it makes there.

The server is the first of these that there is:

1. the fixture ``procrastinate_connector_dsn``, where the user wrote one (any scope of session or
   class): a connection string of libpq's;
2. the environment variable ``PROCRASTINATE_TEST_DSN``;
3. the fixture ``procrastinate_server`` of procrastinate-embedded, where that is installed.

The user that it names must be a superuser. Each suite gets a database of its own, which is dropped
at the end. With ``PROCRASTINATE_TEST_PARTITIONS=64`` its jobs lie in 64 partitions, as those of a
distributed database do, on the same server: see `Database.key_for`.
"""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest

from procrastinate.model.partitions import MANY, ONE
from procrastinate_connector_testkit.subject import Subject

_HOW_TO = (
    "the suite needs a PostgreSQL server: set PROCRASTINATE_TEST_DSN to a connection string of a"
    " superuser, or write a session fixture `procrastinate_connector_dsn`"
    " that returns one, or pip install procrastinate-embedded"
)


class Database:
    """The database of one suite, made when it is first needed."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.has_schema = False
        self.partitions = ONE

    @staticmethod
    def is_to_be_spread() -> bool:
        """Whether the jobs are to lie in many partitions."""
        return os.environ.get("PROCRASTINATE_TEST_PARTITIONS", "1") == str(MANY)

    def key_for(self, test: str) -> str | None:
        """Return the partition key of all jobs of a test; None if there is one partition.

        A test has a partition for itself, so that all that it expects of one is so, the order of
        claims above all. Tests have different ones, so that a suite uses most of them.
        """
        return test if self.partitions.are_many else None


def server_dsn(request: pytest.FixtureRequest) -> str:
    """Return the connection string of the server to test on. Fails the test where there is none."""
    own = _fixture(request, "procrastinate_connector_dsn")
    if own is not None:
        return str(own)
    given = os.environ.get("PROCRASTINATE_TEST_DSN")
    if given:
        return given
    embedded: Any = _fixture(request, "procrastinate_server")
    if embedded is not None:
        return str(embedded.dsn)
    pytest.fail(_HOW_TO, pytrace=False)


def _fixture(request: pytest.FixtureRequest, name: str) -> object | None:
    try:
        value: object = request.getfixturevalue(name)
    except pytest.FixtureLookupError as exc:
        if exc.argname == name:
            return None
        raise
    return value


def new_name() -> str:
    """Return a name for a database that nothing else has."""
    return f"procrastinate_testkit_{secrets.token_hex(6)}"


async def create(server: Subject, name: str, settings: Mapping[str, str] | None = None) -> str:
    """Create a database with settings of its own, and return its connection string."""
    await server.sql(f"create database {name}")
    for setting, value in (settings or {}).items():
        await server.sql(f"alter database {name} set {setting} = '{value}'")
    return dsn_for(server.dsn, name)


async def drop(server: Subject, name: str) -> None:
    """Drop a database, and end the sessions that are still connected to it."""
    await server.sql(f"drop database if exists {name} with (force)")


def dsn_for(dsn: str, database: str) -> str:
    """Return a connection string, a URL or keywords, for another database of the same server."""
    if "://" not in dsn:
        return f"{dsn} dbname='{database}'".lstrip()  # libpq takes the last of two
    scheme, netloc, _, query, _ = urlsplit(dsn)
    kept = [part for part in query.split("&") if part and not part.startswith("dbname=")]
    # By hand: urlunsplit() leaves the slashes out where there is no host.
    options = "?" + "&".join(kept) if kept else ""
    return f"{scheme}://{netloc}/{quote(database)}{options}"


def url_for(dsn: str, scheme: str, **options: str) -> str:
    """Return a connection string, a URL or keywords, as a URL with more options."""
    if "://" in dsn:
        url = f"{scheme}://{dsn.partition('://')[2]}"
    else:
        url = f"{scheme}:///"
        options = dict(part.split("=", 1) for part in shlex.split(dsn)) | options
    if not options:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(options, quote_via=quote)}"


@asynccontextmanager
async def other_database(
    db: Subject, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Subject]:
    """The same kind of connector, open on another new database with settings of its own."""
    name = new_name()
    referee = await db.referee()
    dsn = await create(referee, name, settings)
    there = db.another(db.adapter.connector(dsn), dsn)
    try:
        await there.open()
        yield there
    finally:
        await there.close()
        await drop(referee, name)
