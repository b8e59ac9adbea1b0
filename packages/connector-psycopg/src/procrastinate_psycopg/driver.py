"""What both connectors share: errors, and what can be known of a connection.

Rule: what psycopg raises never leaves. Errors of the server get their meaning from the SQLSTATE,
errors without one from their PEP 249 class. Texts are passed on and never interpreted.
"""

from __future__ import annotations

import os
import socket

import psycopg
from psycopg.abc import AdaptContext
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.pq.abc import PGconn

from procrastinate.connector import Query
from procrastinate.connector_tools import failures, sockets
from procrastinate.errors import ConnectorException, database_error, why_read_only

#: Raised by us, psycopg and Python for a value that cannot be sent, or a row that cannot be read.
VALUE_ERRORS = (*failures.VALUE_ERRORS, psycopg.DataError)


def translate(exc: Exception, query: Query, pgconn: PGconn) -> ConnectorException:
    """Return the error for what a query on an established connection raised."""
    if isinstance(exc, psycopg.Error) and exc.sqlstate is not None:
        return _server_error(exc, exc.sqlstate, pgconn)
    if isinstance(exc, VALUE_ERRORS):
        return failures.value_error(exc, query)
    if _means_lost(exc):
        return failures.lost(exc)
    return database_error(failures.one_line(exc))


def earlier_failure(exc: psycopg.Error) -> ConnectorException:
    """Return the error for a pipeline in which a statement of its owner's has failed before."""
    said = "" if exc.sqlstate is None else f" ({exc.diag.message_primary or exc.sqlstate})"
    return ConnectorException(
        f"an earlier statement in the pipeline of the connection given as connection= has failed"
        f"{said}: end the pipeline, or call its sync(), and roll back. Nothing was done"
    )


def _server_error(exc: psycopg.Error, sqlstate: str, pgconn: PGconn) -> ConnectorException:
    diag = exc.diag
    primary = diag.message_primary or failures.one_line(exc)
    if failures.hides_detail(sqlstate):
        exc.args = (primary,)  # what a traceback shows of the cause
    return failures.server_error(
        primary,
        sqlstate=sqlstate,
        detail=diag.message_detail,
        constraint=diag.constraint_name,
        severity=diag.severity_nonlocalized,
        reason=_why_read_only(pgconn) if sqlstate == failures.READ_ONLY else "",
    )


def _why_read_only(pgconn: PGconn) -> str:
    return why_read_only(
        in_hot_standby=reported(pgconn, "in_hot_standby"),
        by_default=reported(pgconn, "default_transaction_read_only"),
        by_client=None,
    )


def reported(pgconn: PGconn, setting: str) -> str | None:
    """Return what the server reports of one of its settings, None if it does not."""
    if pgconn.status != ConnStatus.OK:
        return None
    value = pgconn.parameter_status(setting.encode())
    return None if value is None else value.decode()


def has_iso_dates(pgconn: PGconn) -> bool:
    """Return whether dates and times come in ISO format, as text."""
    return (reported(pgconn, "DateStyle") or "ISO").startswith("ISO")


def is_ascii(context: AdaptContext | None) -> bool:
    """Return whether a context's connection has the encoding SQL_ASCII: none at all."""
    connection = None if context is None else context.connection
    return connection is not None and connection.info.encoding == "ascii"


def _means_lost(exc: Exception) -> bool:
    """Return whether an error without SQLSTATE is the connection's end."""
    if isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError):
        return True
    return type(exc) in (psycopg.DatabaseError, psycopg.Error)


def is_idle(pgconn: PGconn) -> bool:
    """Return whether a connection is open, and outside of any transaction."""
    return pgconn.transaction_status == TransactionStatus.IDLE


def in_transaction(pgconn: PGconn) -> bool:
    """Return whether a transaction is open, also a failed one."""
    return pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)


def looks_alive(pgconn: PGconn) -> bool:
    """Return whether an idle connection can be used, without a round trip.

    A server that ends a connection says so on the socket. So a silent socket means a live
    connection, as far as anybody can know. What may come at any time on a live one, that is a
    notification, a notice or a changed setting, is read. Anything else is a farewell.
    """
    try:
        while pgconn.status == ConnStatus.OK:
            if not sockets.readable(pgconn.socket):
                return True
            if pgconn.ssl_in_use or _peek(pgconn.socket) not in _AT_ANY_TIME:
                return False
            pgconn.consume_input()
    except (psycopg.Error, OSError):
        pass
    return False


#: The first byte of a NotificationResponse, a ParameterStatus and a NoticeResponse.
_AT_ANY_TIME = (b"A", b"S", b"N")


def _peek(fileno: int) -> bytes:
    with socket.socket(fileno=os.dup(fileno)) as shared:
        return shared.recv(1, socket.MSG_PEEK)


def sever(pgconn: PGconn) -> None:
    """Shut a connection's socket down, from any thread: whatever waits for it ends at once."""
    try:
        fileno = pgconn.socket
    except psycopg.Error:  # it is closed
        return
    sockets.shut_down(fileno)
