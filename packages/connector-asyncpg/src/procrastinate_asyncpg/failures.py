"""What asyncpg raises, as procrastinate's errors."""

from __future__ import annotations

import contextlib
from typing import Any

import asyncpg

from procrastinate.connector import Query
from procrastinate.connector_tools import failures
from procrastinate.connector_tools.asyncpg_values import is_refused_value, without_value
from procrastinate.errors import (
    ConnectionFailed,
    ConnectorException,
    QueryCanceled,
    why_read_only,
)
from procrastinate_asyncpg.kinds import Connection

#: Everything that asyncpg raises about the way to the server, or about what it was told to do.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError, too
)


def translated(exc: Exception, query: Query | None, connection: Connection) -> ConnectorException:
    """Return the error for what asyncpg raised on a connection."""
    if query is not None and isinstance(exc, asyncpg.DataError) and is_refused_value(exc):
        return failures.value_error(without_value(exc), query)
    if isinstance(exc, asyncpg.PostgresError):
        return _of_server(exc, connection)
    if query is not None and _is_about_values(exc):
        return failures.value_error(exc, query)
    if isinstance(exc, TimeoutError):
        return QueryCanceled("the statement took longer than the connector's command_timeout")
    # InternalClientError: what the server sent does not fit, such as the news of its end.
    if isinstance(exc, OSError | asyncpg.InternalClientError) or is_closed(connection):
        return failures.lost(exc)
    return ConnectorException(failures.one_line(exc))


def _is_about_values(exc: Exception) -> bool:
    return isinstance(exc, ValueError | OverflowError)


def _of_server(exc: asyncpg.PostgresError, connection: Connection) -> ConnectorException:
    fields: Any = exc
    sqlstate, primary = fields.sqlstate, fields.message or str(exc.args[0])
    if sqlstate is None:
        return failures.lost(exc) if is_closed(connection) else ConnectorException(primary)
    error = failures.server_error(
        primary,
        sqlstate=sqlstate,
        detail=fields.detail,
        constraint=fields.constraint_name,
        severity=fields.severity_en,
        reason=_why_read_only(connection) if sqlstate == failures.READ_ONLY else "",
    )
    if failures.hides_detail(sqlstate):
        fields.detail = None  # what a traceback shows of the cause
    return error


def _why_read_only(connection: Connection) -> str:
    if is_closed(connection):
        return ""
    said = connection.get_settings()
    return why_read_only(
        in_hot_standby=getattr(said, "in_hot_standby", None),
        by_default=getattr(said, "default_transaction_read_only", None),
        by_client=False,
    )


def is_closed(connection: Connection) -> bool:
    """Return whether a connection is closed, or was given back to its pool."""
    try:
        closed: bool = connection.is_closed()
    except asyncpg.InterfaceError:
        return True
    return closed


def terminate(connection: Connection) -> None:
    """Close a connection at once. Never raises.

    asyncpg refuses it for one that a pool has taken back, as it does when the server closes one.
    """
    with contextlib.suppress(*DRIVER_ERRORS, RuntimeError):  # RuntimeError: its loop has ended
        connection.terminate()


def cannot_connect(exc: Exception, where: str) -> ConnectionFailed:
    """Return the error for a connection that could not be made."""
    text: Exception | str = exc
    if isinstance(exc, TimeoutError) and not str(exc):
        text = "the server did not answer in time"
    return failures.cannot_connect(text, where=where, sqlstate=getattr(exc, "sqlstate", None))
