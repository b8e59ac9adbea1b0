"""Errors of drivers turned into procrastinate's, without what they repeat of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from procrastinate.connector import Query
from procrastinate.connector_tools.limits import ENCODING
from procrastinate.errors import (
    AppNotOpen,
    ConnectionFailed,
    ConnectionLost,
    ConnectorException,
    InvalidData,
    InvalidOption,
    PoolTimeout,
    database_error,
)

#: The SQLSTATE of a write in a read-only transaction: the server may have become a standby.
READ_ONLY = "25006"
#: The classes of SQLSTATEs whose detail may repeat the row that was refused, arguments and all.
#: XX: the coordinator of a cluster repeats what a node has refused as an internal error.
ABOUT_VALUES = ("22", "23", "XX")
#: Raised by drivers and Python for a value that cannot be sent, or a row that cannot be read.
VALUE_ERRORS = (ValueError, OverflowError)


def server_error(
    primary: str,
    *,
    sqlstate: str,
    detail: str | None = None,
    constraint: str | None = None,
    severity: str | None = None,
    reason: str = "",
) -> ConnectorException:
    """Return the error for what the server reported, by the fields of its message.

    ``severity`` is the one that is not translated (field V). The detail is left out if it may
    repeat values; `hides_detail` says when. For ``reason`` see `procrastinate.errors`.
    """
    shown = detail and not hides_detail(sqlstate)
    return database_error(
        f"{primary}: {detail}" if shown else primary,
        sqlstate=sqlstate,
        constraint=constraint,
        reason=reason,
        severity=severity,
    )


def reported(fields: Mapping[str, str]) -> ConnectorException:
    """Return the error for what the server reported, by the letters of the protocol's fields."""
    return server_error(
        fields["M"],
        sqlstate=fields["C"],
        detail=fields.get("D"),
        constraint=fields.get("n"),
        severity=fields.get("V"),
    )


def hides_detail(sqlstate: str) -> bool:
    """Return whether an error's detail may repeat values.

    Then the driver's own exception, which is the cause of ours, must not show it either.
    """
    return sqlstate.startswith(ABOUT_VALUES)


def is_of_a_listener(exc: Exception, query: Query) -> bool:
    """Return whether one of `VALUE_ERRORS` is of a listener that saw the statement.

    Such a listener is the application's code. It is told by the query's values: all can be sent.
    """
    return (
        isinstance(exc, VALUE_ERRORS)
        and not isinstance(exc, UnicodeError)
        and all(map(_is_sendable, query.params.values()))
    )


def unreadable(exc: Exception) -> InvalidData:
    """Return the error for a row that the server has sent, and that cannot be read."""
    return InvalidData(f"a row of the answer cannot be read: {one_line(exc)}")


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


def cannot_connect(
    exc: Exception | str, *, where: str = "", sqlstate: str | None = None
) -> ConnectionFailed:
    """Return the error for a connection to ``where`` that could not be made.

    The driver's text is shown: see `urls` for how to keep passwords out of it.
    """
    return ConnectionFailed(
        f"cannot connect to PostgreSQL{in_brackets(where)}: {one_line(exc)}", sqlstate=sqlstate
    )


def in_brackets(where: str) -> str:
    """Return what `urls.shown` says of a place as a message shows it: in one pair of brackets."""
    return f" ({where.replace(' (', ', ').strip('()')})" if where else ""


def lost(exc: Exception) -> ConnectionLost:
    """Return the error for a connection that broke."""
    return ConnectionLost(f"the connection broke: {one_line(exc)}")


def not_open() -> AppNotOpen:
    """Return the error for a session of a connector that is not open."""
    return AppNotOpen("the connector is not open: call app.open() first")


def takes_no_pools(pool: object) -> InvalidOption:
    """Return the error for a pool handed to a connector that has only its own."""
    return InvalidOption(f"this connector has its own pool and cannot use {type(pool).__name__}")


def not_listening(option: str) -> ConnectionFailed:
    """Return the error for LISTEN behind a pooler: ``option`` names a direct connection.

    There it may hear nothing, and stays on a connection of the server that others get.
    """
    return ConnectionFailed(
        "there is a pooler in front of PostgreSQL, where LISTEN may hear nothing: name a direct"
        f" connection with {option}="
    )


def session_ended(query: Query) -> ConnectorException:
    """Return the error for a query after the end of its session."""
    return ConnectorException(f"{query.name}: this session has ended")


def timed_out(size: int, seconds: float | None, size_option: str) -> PoolTimeout:
    """Return the error for a pool of ``size`` connections (0: no limit) that stayed in use."""
    return PoolTimeout(
        f"all {size} connections of the pool stayed in use for {seconds:g} seconds: "
        f"raise {size_option} or pool_timeout, or hold connections for less long"
    )


def check_encoding(client_encoding: str | None, owner: str) -> None:
    """Raise `InvalidOption` unless the texts of a connection that we are lent travel in UTF8.

    ``client_encoding`` is what the server reports of it, None if that is not known.
    """
    if client_encoding not in (ENCODING, None):
        raise InvalidOption(
            f"the connections of {owner} have client_encoding={client_encoding}, in which not"
            f" every text can be read: make them with client_encoding={ENCODING!r}"
        )


def one_line(exc: Exception | str) -> str:
    """Return an exception's text in one line, or its type's name if it has none."""
    return " ".join(str(exc).split()) or type(exc).__name__
