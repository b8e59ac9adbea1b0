"""A transaction whose BEGIN travels in one message with its first query.

A driver's own BEGIN is usually a round trip more.
"""

from __future__ import annotations

from procrastinate.connector import begin
from procrastinate.errors import ConnectionLost, ConnectorException

_ABORTED = "25P02"  # the server's in_failed_sql_transaction


class LazyTransaction:
    """Whether a session's transaction is wanted, has begun, or has failed to begin."""

    __slots__ = ("_begin", "_begun", "_failure")

    def __init__(self, *, wanted: bool, read_only: bool = False) -> None:
        self._begin = begin(transaction=wanted, read_only=read_only) if wanted or read_only else ""
        self._begun = False
        self._failure: ConnectorException | None = None

    def prefix(self) -> str:
        """Return the SQL to send in front of the next query.

        Raises `ConnectorException` if no query may follow.
        """
        if self._failure is not None:
            raise self._failure
        return "" if self._begun else self._begin

    def after_prefix(self, error: ConnectorException | None, *, in_transaction: bool) -> None:
        """Note what became of a query that had a prefix, and where the connection stands now.

        The server executes nothing of a message that it cannot parse: then BEGIN was not executed
        and the transaction counts as failed all the same. So it does if the connection broke. A
        message that was never sent, because of a value in it, leaves the transaction still to
        begin.
        """
        self._begun = in_transaction
        if in_transaction:
            return
        if isinstance(error, ConnectionLost):
            self._failure = ConnectionLost(str(error), sqlstate=error.sqlstate)
        elif error is not None and error.sqlstate is not None:
            self._failure = aborted()

    def is_to_commit(self) -> bool:
        """Return whether a block that ended well has something to commit.

        Raises `ConnectorException` if the transaction has failed.
        """
        if self._failure is not None:
            raise self._failure
        return self._begun


def aborted() -> ConnectorException:
    """Return the error for a transaction that goes on after one of its statements failed."""
    return ConnectorException(
        "the transaction was rolled back instead of committed: one of its statements had failed",
        sqlstate=_ABORTED,
    )
