"""The connectors pass the public test kit, over both drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, ClassVar

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
from procrastinate_sqlalchemy import SQLAlchemyConnector, SQLAlchemyPsycopg2Connector

Opener = Callable[..., AbstractContextManager[Any]]


def url_of(driver: str) -> str:
    return f"postgresql+{driver}://"


def rows_of(connection: Any, sql: str) -> Any:
    result = connection.execute(sqlalchemy.text(sql))
    return result.all() if result.returns_rows else []


def state_of(connection: sqlalchemy.Connection) -> Any:
    raw: Any = connection.connection.driver_connection
    return raw.autocommit, raw.isolation_level, raw.cursor_factory


@contextmanager
def engine_of(driver: str, dsn: str, **options: Any) -> Iterator[sqlalchemy.Engine]:
    arguments = parse_dsn(dsn) | options.pop("connect_args", {})
    engine = sqlalchemy.create_engine(
        url_of(driver), pool_size=4, connect_args=arguments, **options
    )
    try:
        yield engine
    finally:
        engine.dispose()


def pool_with(driver: str, **options: Any) -> Callable[[str], Any]:
    @contextmanager
    def opened(dsn: str) -> Iterator[OwnedPool]:
        with engine_of(driver, dsn, **options) as engine:

            def query(sql: str) -> Any:
                with engine.begin() as connection:
                    return rows_of(connection, sql)

            def state() -> Any:
                with engine.begin() as connection:
                    return state_of(connection)

            yield OwnedPool(engine, query, state)

    return opened


@contextmanager
def connection(driver: str, dsn: str) -> Iterator[OwnedConnection]:
    with engine_of(driver, dsn) as engine, engine.connect() as opened:
        yield OwnedConnection(
            opened,
            query=lambda sql: rows_of(opened, sql),
            commit=opened.commit,
            rollback=opened.rollback,
            state=lambda: state_of(opened),
        )


@contextmanager
def session(driver: str, dsn: str) -> Iterator[OwnedConnection]:
    with engine_of(driver, dsn) as engine, sqlalchemy.orm.Session(engine) as opened:
        yield OwnedConnection(
            opened,
            query=lambda sql: rows_of(opened, sql),
            commit=opened.commit,
            rollback=opened.rollback,
            state=lambda: state_of(opened.connection()),
        )


class Psycopg2Adapter(Adapter, LimitsPool, TakesPools, Binds):
    connector_class: ClassVar[type[SQLAlchemyConnector]] = SQLAlchemyPsycopg2Connector
    name = "sqlalchemy_psycopg2"
    driver = "psycopg2"

    def connector(self, dsn: str, **options: Any) -> SQLAlchemyConnector:
        return self.connector_class(dsn=url_of(self.driver), connect_args=parse_dsn(dsn), **options)

    def limited(self, dsn: str) -> SQLAlchemyConnector:
        return self.connector(dsn, pool_size=1, max_overflow=0, pool_timeout=3)

    def pools(self) -> Mapping[str, Opener]:
        return {
            "engine": pool_with(self.driver),
            "autocommit": pool_with(self.driver, isolation_level="AUTOCOMMIT"),
            "serializable": pool_with(self.driver, isolation_level="SERIALIZABLE"),
            "dict_rows": pool_with(
                self.driver, connect_args={"cursor_factory": psycopg2.extras.DictCursor}
            ),
        }

    def connections(self) -> Mapping[str, Opener]:
        return {
            "Connection": partial(connection, self.driver),
            "Session": partial(session, self.driver),
        }


class PsycopgAdapter(Psycopg2Adapter):
    connector_class = SQLAlchemyConnector
    name = "sqlalchemy"
    driver = "psycopg"

    def pools(self) -> Mapping[str, Opener]:
        return {
            "engine": pool_with(self.driver),
            "autocommit": pool_with(self.driver, isolation_level="AUTOCOMMIT"),
            "serializable": pool_with(self.driver, isolation_level="SERIALIZABLE"),
            "echo": pool_with(self.driver, echo=True),
        }


TestOverPsycopg2 = suite_for(Psycopg2Adapter())
TestOverPsycopg = suite_for(PsycopgAdapter())
