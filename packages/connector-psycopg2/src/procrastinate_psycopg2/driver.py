"""What every connector built on psycopg2 shares: values, rows and errors.

Rules

1. The connection may be the caller's. Its cursor and row factories, and the type casters
   registered on it or globally, stay as they are and are never relied on: statements run on a
   plain cursor that carries psycopg2's own casters.
2. What psycopg2 raises never leaves: errors of the server get their meaning from the SQLSTATE,
   errors without one from their PEP 249 class. Texts are passed on and never interpreted.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any, cast

import psycopg2
from psycopg2 import extensions
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools import failures, sockets
from procrastinate.connector_tools.moments import moment
from procrastinate.errors import (
    ConnectionFailed,
    ConnectorException,
    InvalidOption,
    database_error,
    why_read_only,
)
from procrastinate_psycopg2.values import adapted

__all__ = [
    "Connection",
    "Cursor",
    "PlainCursor",
    "adapted",
    "check_encoding",
    "check_same_encoding",
    "connect_error",
    "looks_alive",
    "plain_cursor",
    "real_connection",
    "rows_of",
    "run_query",
    "sever",
    "translate",
]

# Rows: what comes out of the database.

_SCALARS = ("BOOLEAN", "FLOAT", "INTEGER", "LONGINTEGER", "UNICODE")
_TIMES = ("PYDATE", "PYTIME", "PYDATETIME", "PYDATETIMETZ", "PYINTERVAL")


def _bytes(value: Any, cursor: Any) -> bytes | None:
    buffer = psycopg2.BINARY(value, cursor)
    return None if buffer is None else bytes(buffer)


def _moment(value: str | None, cursor: Any) -> Any:
    """Return a timestamptz as psycopg2 does, in a third of the time where it is in ISO format."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:  # infinity, years that Python does not know, another DateStyle
        said = cursor.connection.get_parameter_status
        style = said("DateStyle") or "ISO"
        if style.startswith("ISO") or value.endswith("infinity"):
            return extensions.PYDATETIMETZ(value, cursor)
        return moment(value, style=style, zone=said("TimeZone") or "")


def _own_casters() -> dict[int, Any]:
    """Return psycopg2's casters by type: numeric as float, JSON as text, bytea as bytes."""
    names = [name + suffix for name in _SCALARS + _TIMES for suffix in ("", "ARRAY")]
    casters = [getattr(extensions, name) for name in names]
    by_type = {oid: caster for caster in casters for oid in caster.values}
    by_type |= dict.fromkeys(extensions.DECIMAL.values, extensions.FLOAT)
    by_type |= dict.fromkeys(extensions.JSON.values + extensions.JSONB.values, extensions.UNICODE)
    as_bytes = extensions.new_type(psycopg2.BINARY.values, "BYTES", cast(Any, _bytes))
    by_type |= dict.fromkeys(psycopg2.BINARY.values, as_bytes)
    moments = extensions.PYDATETIMETZ.values
    by_type |= dict.fromkeys(moments, extensions.new_type(moments, "MOMENT", cast(Any, _moment)))
    return by_type


_CASTERS = _own_casters()


def plain_cursor(connection: Connection) -> Cursor:
    """Return a cursor that gives tuples of plain values, whatever the connection's owner set up.

    The connection may be of any subclass of psycopg2's, or a transparent proxy around one, as
    instrumentation makes them.
    """
    if type(connection) is not Connection:
        connection = real_connection(connection)
    cursor: Any = extensions.cursor(connection)
    cursor.string_types = _CASTERS
    made: Cursor = cursor
    return made


class PlainCursor(Cursor):
    """The same as a class, to stand in for a while as a caller's ``cursor_factory``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast(Any, self).string_types = _CASTERS


MAX_PROXIES = 20  # around one connection


def real_connection(connection: Any) -> Connection:
    """Return the psycopg2 connection inside any transparent proxies (``__wrapped__``).

    Raises TypeError when there is none.
    """
    if type(connection) is Connection:
        return connection
    real = connection
    for _ in range(MAX_PROXIES):  # some objects have any attribute, and that again, without end
        if issubclass(type(real), Connection):  # isinstance() believes what a proxy claims
            return cast(Connection, real)
        try:
            real = real.__wrapped__
        except Exception:  # AttributeError, or whatever a proxy without a target raises
            break
    raise TypeError(f"{type(connection).__qualname__} is not a psycopg2 connection")


def rows_of(cursor: Cursor) -> Rows:
    """Return all rows of the statement that a cursor executed, ``[]`` where it returns none."""
    return [] if cursor.description is None else cursor.fetchall()


# Errors


def translate(exc: psycopg2.Error) -> ConnectorException:
    """Return the error for what psycopg2 raised on an established connection."""
    if exc.pgcode is not None:
        diag = exc.diag
        if diag.message_primary is not None and failures.hides_detail(exc.pgcode):
            exc.args = (diag.message_primary,)  # what a traceback shows of the cause
        return failures.server_error(
            diag.message_primary or failures.one_line(exc),
            sqlstate=exc.pgcode,
            detail=diag.message_detail,
            constraint=diag.constraint_name,
            severity=diag.severity_nonlocalized,
            reason=_why_read_only(exc) if exc.pgcode == failures.READ_ONLY else "",
        )
    if _means_lost(exc):
        return failures.lost(exc)
    return database_error(failures.one_line(exc))


def _why_read_only(exc: psycopg2.Error) -> str:
    if exc.cursor is None:
        return ""
    connection = exc.cursor.connection
    said = connection.info.parameter_status
    return why_read_only(
        in_hot_standby=said("in_hot_standby"),
        by_default=said("default_transaction_read_only"),
        by_client=connection.readonly,
    )


def _means_lost(exc: psycopg2.Error) -> bool:
    """Say whether an error without SQLSTATE is the connection's end.

    A broken socket is an OperationalError or a bare DatabaseError, a connection closed before
    the call an InterfaceError; mistakes of the caller are of the other subclasses.
    """
    if isinstance(exc, psycopg2.OperationalError | psycopg2.InterfaceError):
        return True
    return type(exc) is psycopg2.DatabaseError


def connect_error(exc: psycopg2.Error, where: str = "") -> ConnectionFailed:
    """Return the error for what psycopg2 raised while it made a connection, to ``where``.

    psycopg2 has no SQLSTATE for those. libpq's text says which server refused and why, and holds
    no password as long as `check_dsn` passed the connection string.
    """
    return failures.cannot_connect(exc, where=where, sqlstate=exc.pgcode)


# Is it still there?


def looks_alive(connection: Connection) -> bool:
    """Say whether an idle connection can be used, without a round trip.

    A server that ends a connection says so on the socket (an error message, then its end), so a
    silent socket means a live connection as far as anybody can know. What is waiting there is
    read without sending anything; notifications and notices stay with the connection.
    """
    try:
        while not connection.closed and sockets.readable(connection.fileno()):
            connection.poll()
    except psycopg2.Error:
        return False
    return not connection.closed


def sever(connection: Connection) -> None:
    """Shut a connection's socket down, from any thread: whatever waits for it ends at once.

    Not by `cancel()`, which holds the interpreter's lock until a server that may be gone answers.
    """
    with contextlib.suppress(psycopg2.Error):  # it is closed
        sockets.shut_down(connection.fileno())


def check_encoding(connection: Connection, owner: str) -> None:
    """Raise `InvalidOption` unless the texts of a connection that we are lent travel in UTF8."""
    failures.check_encoding(connection.get_parameter_status("client_encoding"), owner)
    check_same_encoding(connection, f"a connection of {owner}")


def check_same_encoding(connection: Connection, words: str) -> None:
    """Raise `InvalidOption` if the server reads texts in another encoding than psycopg2 writes.

    psycopg2 does not notice that a statement changes the encoding: its texts would be stored as
    others.
    """
    said = connection.get_parameter_status("client_encoding")
    ours = connection.encoding
    if said is None or said == ours or _codec(said) == _codec(ours):
        return
    raise InvalidOption(
        f"a statement has changed the encoding of {words} to {said}, and psycopg2, which does not"
        f" notice that, sends {ours}: give client_encoding= where it connects, or call"
        " connection.set_client_encoding()"
    )


def _codec(encoding: str) -> str:
    """Return Python's name of an encoding: PostgreSQL and psycopg2 have several for one."""
    plain = "".join(filter(str.isalnum, encoding)).upper()
    return extensions.encodings.get(encoding) or extensions.encodings.get(plain, plain)


# Running a query


def run_query(
    connection: Connection, query: Query, prefix: str = "", sql: str | None = None
) -> Rows:
    """Execute one query on a connection, in whatever transaction that is in.

    ``prefix`` is SQL sent in the same message, and ``sql`` what is sent in place of the query's
    text, if it is given. Raises `ConnectorException` only.
    """
    try:
        cursor = plain_cursor(connection)  # needs no close(): it holds nothing on the server
        text, params = adapted(query)
        cursor.execute(prefix + (sql or text), params)
        return [] if cursor.description is None else cursor.fetchall()
    except psycopg2.Error as exc:
        raise translate(exc) from exc
    except failures.VALUE_ERRORS as exc:
        raise failures.value_error(exc, query) from exc
