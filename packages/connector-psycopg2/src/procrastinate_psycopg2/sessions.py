"""psycopg2 connections in the hands of a session, and in the caller's own transaction.

Connections of sessions are in autocommit mode: `procrastinate.connector_tools.sessions` sends BEGIN
in one message with the first query.
"""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2 import extensions

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools import plans
from procrastinate.connector_tools.lent import LentPools
from procrastinate.connector_tools.plans import Plans
from procrastinate.errors import ConnectorException, InvalidOption
from procrastinate_psycopg2 import driver
from procrastinate_psycopg2.driver import Connection

_IDLE = extensions.TRANSACTION_STATUS_IDLE
_IN_TRANSACTION = (
    extensions.TRANSACTION_STATUS_INTRANS,
    extensions.TRANSACTION_STATUS_INERROR,
)

#: The psycopg2 pools that were handed in; there is no public word for the connections in one.
LENT = LentPools(lambda pool: getattr(pool, "_pool", ()))


class Lease:
    """One connection, as sessions use it."""

    __slots__ = ("_plans", "broken", "connection", "was_autocommit")

    def __init__(
        self, connection: Connection, *, was_autocommit: bool = True, plans: Plans | None = None
    ) -> None:
        self.connection = connection
        #: The mode in which it goes back to its owner.
        self.was_autocommit = was_autocommit
        #: Not to be given out again, whatever its state.
        self.broken = False
        #: What the server keeps for it; None: nothing, because the connection is not ours alone.
        self._plans = plans

    @property
    def in_transaction(self) -> bool:
        return self.connection.get_transaction_status() in _IN_TRANSACTION

    @property
    def reusable(self) -> bool:
        # The status of a closed one is "unknown".
        return not self.broken and self.connection.get_transaction_status() == _IDLE

    def run(self, query: Query, begin: str) -> Rows:
        if self._plans is None:
            return driver.run_query(self.connection, query, begin + query.set_local())
        return plans.run(self, self._plans, query, begin)

    def send(self, query: Query, front: str, sql: str) -> Rows:
        """Send ``front`` and, in place of the query's text, ``sql`` with the query's values."""
        try:
            return driver.run_query(self.connection, query, front, sql)
        except ConnectorException as exc:
            if self._plans is not None and self._plans.refused(exc):
                self.broken = True
            raise

    @property
    def server_pid(self) -> int:
        """The process id that the server, or a pooler, has told."""
        return self.connection.info.backend_pid

    def end(self, command: str) -> str | None:
        try:
            with driver.plain_cursor(self.connection) as cursor:
                cursor.execute(command)
                return cursor.statusmessage
        except psycopg2.Error as exc:
            raise driver.translate(exc) from exc

    def sever(self) -> None:
        driver.sever(self.connection)

    def looks_alive(self) -> bool:
        return driver.looks_alive(self.connection)

    def close(self) -> None:
        self.connection.close()


class BoundExecutor:
    """Executes queries in the transaction that the caller has, or begins, on a connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        return driver.run_query(self._connection, query)


def bound(connection: Any) -> BoundExecutor:
    """Return an executor on the caller's connection. Raises `InvalidOption` for anything else."""
    try:
        real = driver.real_connection(connection)
    except TypeError as exc:
        kind = type(connection)
        raise InvalidOption(
            "connection= takes a psycopg2 connection here, not"
            f" {kind.__module__}.{kind.__qualname__}"
        ) from exc
    if real.closed:
        raise InvalidOption("the psycopg2 connection given as connection= is closed")
    LENT.check_in_use(real, "psycopg2 connection")
    if real.async_:
        raise InvalidOption("the psycopg2 connection given as connection= is an asynchronous one")
    driver.check_same_encoding(real, "the psycopg2 connection given as connection=")
    return BoundExecutor(real)
