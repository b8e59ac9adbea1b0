"""One call on an asyncpg connection: to its end, whatever becomes of the task (`calls` of core)."""

from __future__ import annotations

import functools
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools.asyncpg_values import (
    fetch_by_usual_codecs,
    has_changed_codecs,
)
from procrastinate.connector_tools.calls import Uninterrupted
from procrastinate.connector_tools.failures import VALUE_ERRORS
from procrastinate_asyncpg.failures import DRIVER_ERRORS, terminate, translated
from procrastinate_asyncpg.kinds import Connection
from procrastinate_asyncpg.statements import is_script, prepared, rows_of

T = TypeVar("T")
_ASK_FOR_PID = Query("ask_for_pid", "SELECT pg_catalog.pg_backend_pid()")


async def to_its_end(
    connection: Connection, call: Coroutine[Any, Any, T], query: Query | None = None
) -> T:
    """Await a call on a connection. Raises `ConnectorException`, then a cancellation."""
    try:
        return await Uninterrupted(call, functools.partial(terminate, connection))
    except (*DRIVER_ERRORS, *VALUE_ERRORS) as exc:
        raise translated(exc, query, connection) from exc


async def fetched(connection: Connection, query: Query) -> Rows:
    """Send a query as it is and return its rows."""
    if is_script(query):
        await connection.execute(query.sql)
        return []
    sql, values = prepared(query)
    if has_changed_codecs(connection):
        return rows_of(
            await fetch_by_usual_codecs(connection, sql, values, record_class=asyncpg.Record)
        )
    # Tuples, whatever the connection's own class of records does.
    return rows_of(await connection.fetch(sql, *values, record_class=asyncpg.Record))


async def is_direct(connection: Connection) -> bool:
    """Return whether nothing stands between a connection and one process of the server."""
    ((pid,),) = await to_its_end(connection, fetched(connection, _ASK_FOR_PID), _ASK_FOR_PID)
    return bool(pid == connection.get_server_pid())


async def run_on(connection: Connection, query: Query) -> Rows:
    """Execute a query on a caller's connection, without its settings."""
    return await to_its_end(connection, fetched(connection, query), query)
