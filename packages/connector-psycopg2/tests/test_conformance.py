"""The connector passes the public test kit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.extras
import psycopg2.pool

from procrastinate_connector_testkit import (
    Adapter,
    Binds,
    LimitsPool,
    OwnedConnection,
    OwnedPool,
    TakesPools,
    suite_for,
)
from procrastinate_psycopg2 import Psycopg2Connector


def run(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def state_of(connection: Any) -> Any:
    return (
        connection.autocommit,
        connection.isolation_level,
        connection.readonly,
        connection.cursor_factory,
        connection.get_transaction_status(),
    )


def pool_with(**options: Any) -> Callable[[str], Any]:
    @contextmanager
    def opened(dsn: str) -> Iterator[OwnedPool]:
        pool = psycopg2.pool.ThreadedConnectionPool(1, 6, dsn, **options)

        @contextmanager
        def connection() -> Iterator[Any]:
            taken = pool.getconn()
            try:
                yield taken
                taken.commit()
            finally:
                pool.putconn(taken)

        def query(sql: str) -> Any:
            with connection() as taken:
                return run(taken, sql)

        def state() -> Any:
            with connection() as taken:
                return state_of(taken)

        try:
            yield OwnedPool(pool, query, state)
        finally:
            pool.closeall()

    return opened


def connection_with(**options: Any) -> Callable[[str], Any]:
    @contextmanager
    def opened(dsn: str) -> Iterator[OwnedConnection]:
        connection = psycopg2.connect(dsn, **options)
        try:
            yield OwnedConnection(
                connection,
                query=lambda sql: run(connection, sql),
                commit=connection.commit,
                rollback=connection.rollback,
                state=lambda: state_of(connection),
            )
        finally:
            connection.close()

    return opened


ROW_FACTORIES = {
    "tuples": {},
    "dict_rows": {"cursor_factory": psycopg2.extras.RealDictCursor},
    "named_rows": {"cursor_factory": psycopg2.extras.NamedTupleCursor},
}


class Psycopg2Adapter(Adapter, LimitsPool, TakesPools, Binds):
    connector_class = Psycopg2Connector
    name = "psycopg2"

    def connector(self, dsn: str, **options: Any) -> Psycopg2Connector:
        return Psycopg2Connector(dsn=dsn, **options)

    def limited(self, dsn: str) -> Psycopg2Connector:
        return Psycopg2Connector(dsn=dsn, maxconn=1, pool_timeout=3.0)

    def pools(self) -> Mapping[str, Callable[[str], Any]]:
        return {name: pool_with(**options) for name, options in ROW_FACTORIES.items()}

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {name: connection_with(**options) for name, options in ROW_FACTORIES.items()}


TestPsycopg2 = suite_for(Psycopg2Adapter())
