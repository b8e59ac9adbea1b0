"""Adapters for the broken connectors. The referee is always a healthy one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import broken_connectors
import broken_drivers
import psycopg2
import psycopg2.extras
import psycopg2.pool
from tiny_connector import TinyConnector

from procrastinate.connector import Binder, Connector
from procrastinate_aiopg import AiopgConnector
from procrastinate_connector_testkit import (
    Adapter,
    Binds,
    LimitsPool,
    OwnedConnection,
    OwnedPool,
    TakesPools,
)
from procrastinate_psycopg2 import Psycopg2Connector


def run(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def owned_connection(dsn: str) -> Iterator[OwnedConnection]:
    connection = psycopg2.connect(dsn, cursor_factory=psycopg2.extras.RealDictCursor)
    with contextlib.closing(connection):
        yield OwnedConnection(
            connection,
            query=lambda sql: run(connection, sql),
            commit=connection.commit,
            rollback=connection.rollback,
            state=lambda: connection.cursor_factory,
        )


@contextmanager
def owned_pool(dsn: str) -> Iterator[OwnedPool]:
    pool = psycopg2.pool.ThreadedConnectionPool(1, 6, dsn)

    def query(sql: str) -> Any:
        connection = pool.getconn()
        try:
            with connection:
                return run(connection, sql)
        finally:
            pool.putconn(connection)

    try:
        yield OwnedPool(pool, query)
    finally:
        if not pool.closed:
            pool.closeall()


class BrokenTiny(Adapter, Binds):
    def __init__(self, kind: type[Connector]) -> None:
        self.connector_class = kind  # type: ignore[misc]

    def connector(self, dsn: str, **options: Any) -> Any:
        made: Any = self.connector_class(dsn, **options)  # type: ignore[call-arg]
        self.binders_bind = made.bind
        return made

    def referee(self, dsn: str) -> Connector:
        return TinyConnector(dsn)

    def binder(self, connection: Any) -> Binder:
        return Binder("psycopg2 connection", bind=self.binders_bind)

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {"dict_rows": owned_connection}


class BrokenPool(Adapter, LimitsPool, TakesPools):
    def __init__(self, kind: type[Connector]) -> None:
        self.connector_class = kind  # type: ignore[misc]

    def connector(self, dsn: str, **options: Any) -> Any:
        return self.connector_class(dsn=dsn, pool_timeout=3.0, **options)  # type: ignore[call-arg]

    def limited(self, dsn: str) -> Any:
        return self.connector_class(dsn=dsn, maxconn=1, pool_timeout=2.0)  # type: ignore[call-arg]

    def referee(self, dsn: str) -> Connector:
        return Psycopg2Connector(dsn=dsn)

    def pools(self) -> Mapping[str, Callable[[str], Any]]:
        return {"pool": owned_pool}


class BrokenAsync(Adapter):
    def __init__(self, kind: type[Connector]) -> None:
        self.connector_class = kind  # type: ignore[misc]

    def connector(self, dsn: str, **options: Any) -> Any:
        return self.connector_class(dsn=dsn, **options)  # type: ignore[call-arg]

    def referee(self, dsn: str) -> Connector:
        return AiopgConnector(dsn=dsn)


_BASES: Mapping[type[Connector], type[Adapter]] = {
    TinyConnector: BrokenTiny,
    Psycopg2Connector: BrokenPool,
    AiopgConnector: BrokenAsync,
}


def adapter_of(name: str) -> Adapter:
    """Return the adapter for a broken connector."""
    kind = getattr(broken_connectors, name, None) or getattr(broken_drivers, name)
    for base, adapter in _BASES.items():
        if issubclass(kind, base):
            return adapter(kind)  # type: ignore[call-arg]
    raise LookupError(name)
