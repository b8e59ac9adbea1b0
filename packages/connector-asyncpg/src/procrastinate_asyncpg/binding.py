"""``connection=`` with an asyncpg connection, also one that a pool has given."""

from __future__ import annotations

from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from procrastinate.connector import Binder, Query, Rows
from procrastinate.connector_tools.loops import check_loop
from procrastinate.errors import InvalidOption
from procrastinate_asyncpg.calls import run_on
from procrastinate_asyncpg.kinds import Connection


class BoundExecutor:
    """Executes queries on a caller's connection: in the transaction, or each by itself."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        return await run_on(self._connection, query)


def bound(connection: Any) -> BoundExecutor:
    """Return an executor on a caller's connection.

    Raises `InvalidOption` for one that is closed or was given back to its pool, or anything else.
    """
    if not isinstance(connection, asyncpg.Connection | PoolConnectionProxy):
        kind = type(connection)
        raise InvalidOption(
            f"connection= takes an asyncpg connection, not {kind.__module__}.{kind.__qualname__}"
        )
    try:
        closed = connection.is_closed()
    except asyncpg.InterfaceError as exc:
        # A pool forgets a connection that broke as it forgets one that was given back.
        raise InvalidOption(
            "the asyncpg connection given as connection= is not its pool's any more: it was given"
            " back to its pool, or it broke"
        ) from exc
    if closed:
        raise InvalidOption("the asyncpg connection given as connection= is closed")
    check_loop(getattr(connection, "_loop", None), "asyncpg connection")  # no public word for it
    return BoundExecutor(connection)


CONNECTION = Binder(words="asyncpg connection", bind_async=bound)
