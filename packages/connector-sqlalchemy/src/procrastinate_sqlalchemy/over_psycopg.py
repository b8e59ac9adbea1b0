"""Engines over psycopg 3.

Rules

1. Queries of a session have their values in the text: only then a query and its settings are one
   message, and pass any pooler. Rows are read by loaders of our own.
2. What goes through SQLAlchemy has its values beside the text, and so its settings in a message
   before it.
3. On a connection whose owner has other loaders for the types that we read, or another DateStyle
   than ISO, a query does not go through SQLAlchemy, which would not read the rows as we do.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

import psycopg
from psycopg import adapt
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from procrastinate.connector import Query, Row, Rows
from procrastinate.connector_tools import failures, sockets
from procrastinate.connector_tools.literals import with_literals
from procrastinate.connector_tools.psycopg_values import (
    ISO,
    PlainRows,
    adapted,
    has_other_loaders,
    read_plain_values,
    reported,
)
from procrastinate.errors import ConnectorException, database_error, why_read_only
from procrastinate_sqlalchemy.drivers import Driver, Send

_IN_TRANSACTION = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_MAX_PROXIES = 20  # around one connection
_rows = PlainRows(adapt, psycopg.adapters)

Connection = psycopg.Connection[Any]


class OverPsycopg(Driver):
    """psycopg 3."""

    name = "psycopg"
    error: ClassVar[type[Exception]] = psycopg.Error
    not_libpqs = frozenset(
        {"autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory"}
    )

    def real_connection(self, connection: Any) -> Connection:
        real = connection
        for _ in range(_MAX_PROXIES):  # as tracing puts around it
            if issubclass(type(real), psycopg.Connection):
                return real  # type: ignore[no-any-return]
            try:
                real = real.__wrapped__
            except Exception:
                break
        raise TypeError(f"{type(connection).__qualname__} is not a psycopg connection")

    def check_encoding(self, real: Connection, owner: str) -> None:
        failures.check_encoding(reported(real, "client_encoding"), owner)

    def check_bound(self, real: Connection) -> None:
        """Nothing: psycopg notices what a statement changes."""

    def is_idle(self, real: Connection) -> bool:
        return real.pgconn.transaction_status == TransactionStatus.IDLE

    def in_transaction(self, real: Connection) -> bool:
        return real.pgconn.transaction_status in _IN_TRANSACTION

    def has_failed(self, real: Connection) -> bool:
        return real.pgconn.transaction_status == TransactionStatus.INERROR

    def take(self, real: Connection) -> bool:
        autocommit = real.autocommit
        if not autocommit:
            real.autocommit = True
        return autocommit

    def restore(self, real: Connection, before: bool) -> None:
        if not (before or real.closed):
            real.autocommit = False

    def looks_alive(self, real: Connection) -> bool:
        return not (real.closed or sockets.readable(real.fileno()))

    def sever(self, real: Connection) -> None:
        try:
            fileno = real.fileno()
        except psycopg.Error:  # it is closed
            return
        sockets.shut_down(fileno)

    def run(self, real: Connection, query: Query, prefix: str, send: Send | None) -> Rows:
        if not (reported(real, "DateStyle") or "ISO").startswith("ISO"):
            prefix += ISO
        if send is None or (prefix and not query.params) or has_other_loaders(real):
            return _run_in_session(real, query, prefix)
        alone = bool(prefix) and not (prefix.startswith("BEGIN") or self.in_transaction(real))
        if prefix:
            _run_in_session(real, Query("settings", "BEGIN;" if alone else ""), prefix)
        try:
            rows = self.run_bound(real, query, send)
        except BaseException:
            if alone and self.in_transaction(real):
                _run_in_session(real, Query("rollback", "ROLLBACK"), "")
            raise
        if alone:
            _run_in_session(real, Query("commit", "COMMIT"), "")
        return rows

    def run_bound(self, real: Connection, query: Query, send: Send) -> Rows:
        if has_other_loaders(real):
            if not self.in_transaction(real):
                send("SELECT 1", None)  # SQLAlchemy begins with a statement of its own only
            return _run_bound(real, query)
        rows = send(query.sql, adapted(query.params) if query.params else None)
        return [_plain(tuple(row)) for row in rows]

    def translate(self, exc: psycopg.Error, query: Query) -> ConnectorException:
        return translate(exc, query)

    def connect_error(self, exc: psycopg.Error) -> ConnectorException:
        return failures.cannot_connect(exc, sqlstate=exc.sqlstate)


def _run_in_session(real: Connection, query: Query, prefix: str) -> Rows:
    try:
        cursor = psycopg.ClientCursor(real)
        cursor.execute((prefix + with_literals(query)).encode())
        while cursor.nextset():
            pass
        return _rows.of(cursor.pgresult)
    except failures.VALUE_ERRORS as exc:
        raise failures.value_error(exc, query) from exc
    except psycopg.Error as exc:
        raise translate(exc, query, real) from exc


def _run_bound(real: Connection, query: Query) -> Rows:
    """Run a query on a caller's connection, which may have another encoding."""
    try:
        cursor = psycopg.ClientCursor(real, row_factory=tuple_row)
        read_plain_values(cursor)
        cursor.execute(query.sql.encode(), adapted(query.params) if query.params else None)
        return [] if cursor.description is None else cursor.fetchall()
    except failures.VALUE_ERRORS as exc:
        raise failures.value_error(exc, query) from exc
    except psycopg.Error as exc:
        raise translate(exc, query, real) from exc


def _plain(row: Row) -> Row:
    if Decimal in map(type, row):
        return tuple(float(value) if type(value) is Decimal else value for value in row)
    return row


def translate(
    exc: psycopg.Error, query: Query, real: Connection | None = None
) -> ConnectorException:
    """Return the error for what psycopg raised on an established connection."""
    if exc.sqlstate is not None:
        primary = exc.diag.message_primary or failures.one_line(exc)
        if failures.hides_detail(exc.sqlstate):
            exc.args = (primary,)  # what a traceback shows of the cause
        explains = exc.sqlstate == failures.READ_ONLY and real is not None
        return failures.server_error(
            primary,
            sqlstate=exc.sqlstate,
            detail=exc.diag.message_detail,
            constraint=exc.diag.constraint_name,
            severity=exc.diag.severity_nonlocalized,
            reason=_why_read_only(real) if explains and real is not None else "",
        )
    if isinstance(exc, psycopg.DataError):
        return failures.value_error(exc, query)
    if isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError):
        return failures.lost(exc)
    if type(exc) in (psycopg.DatabaseError, psycopg.Error):
        return failures.lost(exc)
    return database_error(failures.one_line(exc))


def _why_read_only(real: Connection) -> str:
    return why_read_only(
        in_hot_standby=reported(real, "in_hot_standby"),
        by_default=reported(real, "default_transaction_read_only"),
        by_client=None,
    )
