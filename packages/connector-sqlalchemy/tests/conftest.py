from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
import sqlalchemy
from psycopg2.extensions import connection as RawConnection
from sqlalchemy.engine import Engine

from procrastinate_sqlalchemy import SQLAlchemyPsycopg2Connector


@pytest.fixture
def admin(procrastinate_dsn: str) -> Iterator[RawConnection]:
    """A psycopg2 connection in autocommit mode, with a table ``notes (id, text)``."""
    connection = psycopg2.connect(procrastinate_dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("create table notes (id bigserial primary key, text text unique)")
    yield connection
    connection.close()


@pytest.fixture
def new_engine(procrastinate_dsn: str, admin: RawConnection) -> Iterator[Callable[..., Engine]]:
    """Make engines to the test's database, disposed of after the test."""
    engines: list[Engine] = []
    read = psycopg2.extensions.parse_dsn(procrastinate_dsn)

    def new(connect_args: dict[str, Any] | None = None, **arguments: Any) -> Engine:
        if "creator" not in arguments:
            arguments["connect_args"] = {**read, **(connect_args or {})}
        engines.append(sqlalchemy.create_engine("postgresql+psycopg2://", **arguments))
        return engines[-1]

    yield new
    for engine in engines:
        engine.dispose()


@pytest.fixture
def own(procrastinate_dsn: str, admin: RawConnection) -> Iterator[SQLAlchemyPsycopg2Connector]:
    """An open connector with an engine of its own, of at most three connections."""
    read = psycopg2.extensions.parse_dsn(procrastinate_dsn)
    connector = SQLAlchemyPsycopg2Connector(connect_args=read, pool_size=3, max_overflow=0)
    connector.open()
    yield connector
    connector.close()


@pytest.fixture
def sharing(new_engine: Callable[..., Engine]) -> Iterator[Callable[..., Any]]:
    """Make connectors opened with an engine handed in."""
    connectors: list[SQLAlchemyPsycopg2Connector] = []

    def share(engine: Engine | None = None, **arguments: Any) -> SQLAlchemyPsycopg2Connector:
        connectors.append(SQLAlchemyPsycopg2Connector())
        connectors[-1].open(engine or new_engine(**arguments))
        return connectors[-1]

    yield share
    for connector in connectors:
        connector.close()
