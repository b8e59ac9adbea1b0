from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from procrastinate_psycopg2 import Psycopg2Connector


@pytest.fixture
def connect(procrastinate_dsn: str) -> Iterator[Callable[..., Connection]]:
    """Make psycopg2 connections to the test's database, closed after the test."""
    connections: list[Connection] = []

    def new(**arguments: object) -> Connection:
        connections.append(psycopg2.connect(procrastinate_dsn, **arguments))
        return connections[-1]

    yield new
    for connection in connections:
        connection.close()


@pytest.fixture
def admin(connect: Callable[..., Connection]) -> Connection:
    """A connection in autocommit mode, with a table ``notes (id, text)``."""
    connection = connect()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("create table notes (id bigserial primary key, text text unique)")
    return connection


@pytest.fixture
def connector(procrastinate_dsn: str, admin: Connection) -> Iterator[Psycopg2Connector]:
    """An open connector with at most three connections."""
    connector = Psycopg2Connector(dsn=procrastinate_dsn, maxconn=3, pool_timeout=10)
    connector.open()
    yield connector
    connector.close()
