"""A small connector of one's own passes the kit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
from tiny_connector import TinyConnector

from procrastinate.connector import Binder
from procrastinate_connector_testkit import Adapter, Binds, OwnedConnection, suite_for


def run(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def owned_connection(dsn: str) -> Iterator[OwnedConnection]:
    with closing(psycopg2.connect(dsn)) as connection:
        yield OwnedConnection(
            connection,
            query=lambda sql: run(connection, sql),
            commit=connection.commit,
            rollback=connection.rollback,
        )


class TinyAdapter(Adapter, Binds):
    connector_class = TinyConnector

    def connector(self, dsn: str, **options: Any) -> TinyConnector:
        return TinyConnector(dsn, **options)

    def binder(self, connection: Any) -> Binder:
        return Binder("psycopg2 connection", bind=TinyConnector().bind)

    def connections(self) -> Mapping[str, Callable[[str], Any]]:
        return {"psycopg2": owned_connection}


TestTiny = suite_for(TinyAdapter())
