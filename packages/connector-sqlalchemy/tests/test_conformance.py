"""The connector passes the public test kit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2.extras
import sqlalchemy
import sqlalchemy.orm
from psycopg2.extensions import parse_dsn

from procrastinate_connector_testkit import (
    Adapter,
    Binds,
    LimitsPool,
    OwnedConnection,
    OwnedPool,
    TakesPools,
    suite_for,
)
from procrastinate_sqlalchemy import SQLAlchemyPsycopg2Connector

URL = "postgresql+psycopg2://"


def rows_of(connection: Any, sql: str) -> Any:
    result = connection.execute(sqlalchemy.text(sql))
    return result.all() if result.returns_rows else []


def state_of(connection: sqlalchemy.Connection) -> Any:
    raw: Any = connection.connection.driver_connection
    return raw.autocommit, raw.isolation_level, raw.cursor_factory


@contextmanager
def engine_of(dsn: str, **options: Any) -> Iterator[sqlalchemy.Engine]:
    arguments = parse_dsn(dsn) | options.pop("connect_args", {})
    engine = sqlalchemy.create_engine(URL, pool_size=4, connect_args=arguments, **options)
    try:
        yield engine
    finally:
        engine.dispose()


def pool_with(**options: Any) -> Callable[[str], Any]:
    @contextmanager
    def opened(dsn: str) -> Iterator[OwnedPool]:
        with engine_of(dsn, **options) as engine:

            def query(sql: str) -> Any:
                with engine.begin() as connection:
                    return rows_of(connection, sql)

            def state() -> Any:
                with engine.begin() as connection:
                    return state_of(connection)

            yield OwnedPool(engine, query, state)

    return opened


@contextmanager
def connection(dsn: str) -> Iterator[OwnedConnection]:
    with engine_of(dsn) as engine, engine.connect() as opened:
        yield OwnedConnection(
            opened,
            query=lambda sql: rows_of(opened, sql),
            commit=opened.commit,
            rollback=opened.rollback,
            state=lambda: state_of(opened),
        )


@contextmanager
def session(dsn: str) -> Iterator[OwnedConnection]:
    with engine_of(dsn) as engine, sqlalchemy.orm.Session(engine) as opened:
        yield OwnedConnection(
            opened,
            query=lambda sql: rows_of(opened, sql),
            commit=opened.commit,
            rollback=opened.rollback,
            state=lambda: state_of(opened.connection()),
        )


class SQLAlchemyAdapter(Adapter, LimitsPool, TakesPools, Binds):
    connector_class = SQLAlchemyPsycopg2Connector
    name = "sqlalchemy"

    def connector(self, dsn: str, **options: Any) -> SQLAlchemyPsycopg2Connector:
        return SQLAlchemyPsycopg2Connector(connect_args=parse_dsn(dsn), **options)

    def limited(self, dsn: str) -> SQLAlchemyPsycopg2Connector:
        return SQLAlchemyPsycopg2Connector(
            connect_args=parse_dsn(dsn), pool_size=1, max_overflow=0, pool_timeout=3
        )

    def pools(self) -> Mapping[str, Callable[[str], Any]]:
        dict_rows = {"cursor_factory": psycopg2.extras.DictCursor}
        return {
            "engine": pool_with(),
            "autocommit": pool_with(isolation_level="AUTOCOMMIT"),
            "serializable": pool_with(isolation_level="SERIALIZABLE"),
            "dict_rows": pool_with(connect_args=dict_rows),
        }

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {"Connection": connection, "Session": session}


TestSQLAlchemy = suite_for(SQLAlchemyAdapter())
