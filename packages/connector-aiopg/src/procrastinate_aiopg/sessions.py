"""The caller's transaction on an aiopg connection."""

from __future__ import annotations

from typing import Any

import aiopg

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools.lent import LentPools
from procrastinate.connector_tools.loops import check_loop
from procrastinate.errors import InvalidOption
from procrastinate_aiopg.held import Held
from procrastinate_psycopg2.driver import check_same_encoding

#: The aiopg pools that were handed in; there is no public word for the connections in one.
LENT = LentPools(lambda pool: getattr(pool, "_free", ()))


class BoundExecutor:
    """Executes queries in the transaction that the caller has, or begins, on a connection."""

    __slots__ = ("_connection", "_held")

    def __init__(self, connection: aiopg.Connection) -> None:
        self._connection = connection
        self._held: Held | None = None

    async def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        if self._held is None:
            self._held = await Held.hold(self._connection)
        return await self._held.send(query, "", query.sql)


def bound(connection: Any) -> BoundExecutor:
    """Return an executor on the caller's connection. Raises `InvalidOption` for anything else."""
    if not isinstance(connection, aiopg.Connection):
        kind = type(connection)
        raise InvalidOption(
            f"connection= takes an aiopg connection here, not {kind.__module__}.{kind.__qualname__}"
        )
    if connection.closed:
        raise InvalidOption("the aiopg connection given as connection= is closed")
    LENT.check_in_use(connection, "aiopg connection")
    check_loop(getattr(connection, "_loop", None), "aiopg connection")  # no public word for it
    check_same_encoding(connection.raw, "the aiopg connection given as connection=")
    return BoundExecutor(connection)
