"""Engines over psycopg2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import psycopg2
from psycopg2 import extensions

from procrastinate.connector import Query, Rows
from procrastinate.errors import ConnectorException
from procrastinate_psycopg2 import driver
from procrastinate_psycopg2.dsn import FACTORIES
from procrastinate_sqlalchemy.drivers import Driver, Send

_IDLE = extensions.TRANSACTION_STATUS_IDLE
_INERROR = extensions.TRANSACTION_STATUS_INERROR
_IN_TRANSACTION = (extensions.TRANSACTION_STATUS_INTRANS, _INERROR)


class OverPsycopg2(Driver):
    """psycopg2: values travel within the text, so a prefix goes in the same message."""

    name = "psycopg2"
    error: ClassVar[type[Exception]] = psycopg2.Error
    not_libpqs = frozenset(FACTORIES)
    # SQLAlchemy itself cannot begin on a connection whose cursors give dictionaries.
    connect_args: ClassVar[Mapping[str, Any]] = {"cursor_factory": driver.PlainCursor}

    def real_connection(self, connection: Any) -> driver.Connection:
        return driver.real_connection(connection)

    def check_encoding(self, real: driver.Connection, owner: str) -> None:
        driver.check_encoding(real, owner)

    def check_bound(self, real: driver.Connection) -> None:
        driver.check_same_encoding(real, "the connection or session given as connection=")

    def is_idle(self, real: driver.Connection) -> bool:
        return real.get_transaction_status() == _IDLE  # "unknown" for a closed one

    def in_transaction(self, real: driver.Connection) -> bool:
        return real.get_transaction_status() in _IN_TRANSACTION

    def has_failed(self, real: driver.Connection) -> bool:
        return real.get_transaction_status() == _INERROR

    def take(self, real: driver.Connection) -> tuple[bool, Any]:
        before = real.autocommit, real.cursor_factory
        if not before[0]:
            real.autocommit = True
        real.cursor_factory = driver.PlainCursor
        return before

    def restore(self, real: driver.Connection, before: tuple[bool, Any]) -> None:
        autocommit, cursor_factory = before
        if not real.closed:
            real.cursor_factory = cursor_factory
            if not autocommit:
                real.autocommit = False

    def looks_alive(self, real: driver.Connection) -> bool:
        return driver.looks_alive(real)

    def sever(self, real: driver.Connection) -> None:
        driver.sever(real)

    def run(self, real: driver.Connection, query: Query, prefix: str, send: Send | None) -> Rows:
        if send is None:
            return driver.run_query(real, query, prefix)
        sql, params = driver.adapted(query)
        return send(prefix + sql, params)

    def run_bound(self, real: driver.Connection, query: Query, send: Send) -> Rows:
        theirs = real.cursor_factory
        real.cursor_factory = driver.PlainCursor
        try:
            return self.run(real, query, "", send)
        finally:
            real.cursor_factory = theirs

    def translate(self, exc: psycopg2.Error, query: Query) -> ConnectorException:
        return driver.translate(exc)

    def connect_error(self, exc: psycopg2.Error) -> ConnectorException:
        return driver.connect_error(exc)
