"""A transaction whose BEGIN travels in one message with its first query.

psycopg2's own BEGIN is a round trip more. What it takes to do without is the same on every
connection of psycopg2's, synchronous or not: so the connectors built on it share this.
"""

from __future__ import annotations

from procrastinate.connector import begin
from procrastinate.errors import ConnectorException

_ABORTED = "25P02"  # the server's in_failed_sql_transaction


class LazyTransaction:
    """Whether a session's transaction is wanted, has begun, or has failed to begin."""

    __slots__ = ("_begin", "_begun", "_failed")

    def __init__(self, *, wanted: bool, read_only: bool = False) -> None:
        self._begin = begin(transaction=wanted, read_only=read_only)
        self._begun = False
        self._failed = False

    def prefix(self) -> str:
        """Return the SQL to send in front of the next query. Raises where none may follow."""
        if self._failed:
            raise aborted()
        return "" if self._begun else self._begin

    def after_prefix(self, error: ConnectorException | None, *, in_transaction: bool) -> None:
        """Note what became of a query that had a prefix, and where the connection stands now.

        The server executes nothing of a message that it cannot parse: then BEGIN was not executed
        and the transaction counts as failed all the same. A message that was never sent, because
        of a value in it, leaves the transaction still to begin.
        """
        self._begun = in_transaction
        self._failed = not in_transaction and error is not None and error.sqlstate is not None

    def is_to_commit(self) -> bool:
        """Whether a block that ended well has something to commit. Raises where it cannot."""
        if self._failed:
            raise aborted()
        return self._begun


def aborted() -> ConnectorException:
    """Return the error for a transaction that goes on after one of its statements failed."""
    return ConnectorException(
        "the transaction was rolled back instead of committed: one of its statements had failed",
        sqlstate=_ABORTED,
    )
