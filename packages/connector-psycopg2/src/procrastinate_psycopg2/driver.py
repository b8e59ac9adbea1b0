"""What every connector built on psycopg2 shares: values, rows and errors.

Rules

1. The connection may be somebody else's. Its cursor and row factories, and the type casters
   registered on it or globally, stay as they are and are never relied on: statements run on a
   plain cursor that carries psycopg2's own casters.
2. What psycopg2 raises never leaves: errors of the server get their meaning from the SQLSTATE,
   errors without one from their PEP 249 class. Texts are passed on and never interpreted.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
import socket
import sys
from datetime import datetime
from typing import Any, cast

import psycopg2
from psycopg2 import extensions
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from procrastinate.connector import Query, Rows
from procrastinate.errors import (
    ConnectionFailed,
    ConnectionLost,
    ConnectorException,
    InvalidData,
    InvalidOption,
    database_error,
    why_read_only,
)
from procrastinate_psycopg2.dsn import (
    ENCODING,
    check_dsn,
    connection_url,
    for_our_own,
    shown_dsn,
    split_url,
)
from procrastinate_psycopg2.values import adapted

__all__ = [
    "READ_ONLY",
    "Connection",
    "Cursor",
    "PlainCursor",
    "adapted",
    "check_dsn",
    "check_encoding",
    "connect_error",
    "connection_url",
    "for_our_own",
    "leaves_traces",
    "looks_alive",
    "plain_cursor",
    "real_connection",
    "rows_of",
    "run_query",
    "sever",
    "shown_dsn",
    "split_url",
    "translate",
    "value_error",
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
        return extensions.PYDATETIMETZ(value, cursor)


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
    return cast(Cursor, cursor)


class PlainCursor(Cursor):
    """The same as a class, to stand in for a while as somebody's ``cursor_factory``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast(Any, self).string_types = _CASTERS


MAX_PROXIES = 20  # around one connection


def real_connection(connection: Any) -> Connection:
    """Return the psycopg2 connection inside any transparent proxies (``__wrapped__``).

    Raises TypeError when there is none.
    """
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

READ_ONLY = "25006"  # the SQLSTATE of a write in a read-only transaction
#: Raised by psycopg2 and Python for a value that cannot be sent, or a row that cannot be read.
VALUE_ERRORS = (ValueError, OverflowError)


def translate(exc: psycopg2.Error) -> ConnectorException:
    """Return the error for what psycopg2 raised on an established connection."""
    if exc.pgcode is not None:
        diag = exc.diag
        return database_error(
            _server_text(exc),
            sqlstate=exc.pgcode,
            constraint=diag.constraint_name,
            reason=_why_read_only(exc) if exc.pgcode == READ_ONLY else "",
            severity=diag.severity_nonlocalized,
        )
    if _means_lost(exc):
        return ConnectionLost(f"the connection broke: {_one_line(exc)}")
    return database_error(_one_line(exc))


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


#: The classes of SQLSTATEs whose detail may repeat the row that was refused, arguments and all.
#: XX: the coordinator of a cluster repeats what a node has refused as an internal error.
ABOUT_VALUES = ("22", "23", "XX")


def _server_text(exc: psycopg2.Error) -> str:
    primary, detail = exc.diag.message_primary, exc.diag.message_detail
    if primary is None:
        return _one_line(exc)
    if exc.pgcode is not None and exc.pgcode.startswith(ABOUT_VALUES):
        exc.args = (primary,)  # what a traceback shows of the cause
        return primary
    return f"{primary}: {detail}" if detail else primary


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
    place = f" ({where})" if where else ""
    return ConnectionFailed(
        f"cannot connect to PostgreSQL{place}: {_one_line(exc)}", sqlstate=exc.pgcode
    )


def value_error(exc: Exception, query: Query) -> InvalidData:
    """Return the error for a value that was refused on the way, before or behind the server."""
    names = [name for name, value in query.params.items() if not _is_sendable(value)]
    if names:
        return InvalidData(f"parameter {names[0]!r} of {query.name} cannot be sent: {exc}")
    return InvalidData(f"a value of {query.name} cannot be sent or read: {exc}")


def _is_sendable(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_sendable, value))
    try:
        text = value if isinstance(value, str) else str(value)
        return b"\0" not in text.encode()
    except ValueError:
        return False


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__


# Is it still there?


def looks_alive(connection: Connection) -> bool:
    """Say whether an idle connection can be used, without a round trip.

    A server that ends a connection says so on the socket (an error message, then its end), so a
    silent socket means a live connection as far as anybody can know. What is waiting there is
    read without sending anything; notifications and notices stay with the connection.
    """
    try:
        while not connection.closed and _has_news(connection):
            connection.poll()
    except psycopg2.Error:
        return False
    return not connection.closed


def _has_news(connection: Connection) -> bool:
    if sys.platform == "win32":
        return bool(select.select([connection.fileno()], [], [], 0)[0])
    poller = select.poll()  # unlike select(), takes descriptors of 1024 and above
    poller.register(connection.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def sever(connection: Connection) -> None:
    """Shut a connection's socket down, from any thread: whatever waits for it ends at once.

    Not by `cancel()`, which holds the interpreter's lock until a server that may be gone answers.
    """
    try:
        duplicate = os.dup(connection.fileno())
    except (psycopg2.Error, OSError):  # it is closed
        return
    with socket.socket(fileno=duplicate) as shared, contextlib.suppress(OSError):
        shared.shutdown(socket.SHUT_RDWR)


def check_encoding(connection: Connection, owner: str) -> None:
    """Raise `InvalidOption` unless the texts of a connection that we are lent travel in UTF8."""
    said = connection.info.parameter_status("client_encoding")
    if said not in (ENCODING, None):
        raise InvalidOption(
            f"the connections of {owner} have client_encoding={said}, in which not every text can"
            f" be read: make them with client_encoding={ENCODING!r}"
        )


# Running a query


def run_query(connection: Connection, query: Query, prefix: str = "") -> Rows:
    """Execute one query on a connection, in whatever transaction that is in.

    ``prefix`` is SQL sent in the same message. Raises `ConnectorException` only.
    """
    try:
        cursor = plain_cursor(connection)  # needs no close(): it holds nothing on the server
        sql, params = adapted(query)
        cursor.execute(prefix + sql, params)
        return rows_of(cursor)
    except psycopg2.Error as exc:
        raise translate(exc) from exc
    except VALUE_ERRORS as exc:
        raise value_error(exc, query) from exc


_TRACES = re.compile(
    r"""(?: \A | ; ) (?: \s | --[^\n]*\n | /\*.*?\*/ )*
        (?: set \s+ (?! local\b | constraints\b | transaction\b )
          | (?: reset | prepare | listen | load | discard | declare ) \s
          | create \s+ (?: (?: local | global ) \s+ )? temp )
      | set_config \s* \( [^()]* , \s* false \s* \)
      | pg_(?: try_ )? advisory_lock (?: _shared )? \s* \(
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


@functools.lru_cache(maxsize=512)
def leaves_traces(sql: str) -> bool:
    """Say whether a statement changes what the next user of the connection would see.

    Settings, prepared statements, LISTEN, temporary tables, and advisory locks of the session. A
    connection on which one ran is closed instead of given back: cheaper than a reset after each
    session, and right for connections that carry their owner's settings.
    """
    return _TRACES.search(sql) is not None
