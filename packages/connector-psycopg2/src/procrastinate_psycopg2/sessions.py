"""Executors on psycopg2 connections: a session of our own, or the caller's transaction.

Rules

1. Connections of sessions are in autocommit mode, so one query is one round trip. A transaction's
   BEGIN travels in one message with its first query (`transactions`).
2. A connection on which anything is doubtful is closed and not given back: it broke, it was
   severed, it stands on a read-only server, a rollback failed, or a statement left a setting
   behind. After the second and the third of these the pool's idle connections are closed too.
3. A COMMIT that the server turned into a rollback is an error: an earlier statement had failed and
   the block went on.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import psycopg2
from psycopg2 import extensions

from procrastinate.connector import Query, Rows
from procrastinate.errors import ConnectionLost, ConnectorException, InvalidOption
from procrastinate_psycopg2 import driver
from procrastinate_psycopg2.driver import Connection
from procrastinate_psycopg2.pools import Source
from procrastinate_psycopg2.transactions import LazyTransaction, aborted

_IDLE = extensions.TRANSACTION_STATUS_IDLE
_IN_TRANSACTION = (
    extensions.TRANSACTION_STATUS_INTRANS,
    extensions.TRANSACTION_STATUS_INERROR,
)


class Session:
    """One connection for the length of a block, also as its executor."""

    __slots__ = (
        "_connection",
        "_discard",
        "_held",
        "_severed",
        "_source",
        "_timeout",
        "_transaction",
    )

    def __init__(
        self,
        source: Source,
        *,
        transaction: bool,
        read_only: bool = False,
        timeout: float | None = None,
    ) -> None:
        self._source = source
        self._timeout = timeout
        self._transaction = LazyTransaction(wanted=transaction, read_only=read_only)
        self._connection: Connection | None = None  # until the block ends
        self._held: Connection | None = None  # until it is given back: COMMIT may wait as well
        self._discard = False
        self._severed = False

    def __enter__(self) -> Session:
        self._connection = self._held = self._source.acquire(self._timeout)
        return self

    def execute(self, query: Query, /) -> Rows:
        """Execute one query. Raises `ConnectorException`."""
        connection = self._connection
        if connection is None:
            raise ConnectorException(f"{query.name}: this session has ended")
        prefix = self._transaction.prefix()
        self._discard = self._discard or driver.leaves_traces(query.sql)
        error: ConnectorException | None = None
        try:
            return driver.run_query(connection, query, prefix + query.set_local())
        except ConnectorException as exc:
            error = exc
            if isinstance(exc, ConnectionLost):
                self._lost(exc)
            raise
        finally:
            if prefix:
                in_transaction = connection.info.transaction_status != _IDLE
                self._transaction.after_prefix(error, in_transaction=in_transaction)

    def sever(self) -> None:
        """Shut the connection down while a statement waits on it; from any thread."""
        held = self._held
        if held is not None:
            self._severed = True
            driver.sever(held)

    def _lost(self, exc: ConnectionLost) -> None:
        self._discard = True
        if self._severed or exc.sqlstate == driver.READ_ONLY:
            self._source.discard_idle()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is None or self._source.inherited:
            return
        try:
            if kind is None and self._transaction.is_to_commit():
                self._commit(connection)
        finally:
            self._give_back(connection)

    def _commit(self, connection: Connection) -> None:
        try:
            ended = _run(connection, "COMMIT")
        except psycopg2.Error as exc:
            error = driver.translate(exc)
            if isinstance(error, ConnectionLost):
                self._lost(error)
            raise error from exc
        if ended == "ROLLBACK":
            raise aborted()

    def _give_back(self, connection: Connection) -> None:
        self._discard = self._discard or self._severed
        status = connection.get_transaction_status()  # "unknown" for one that is closed
        if status != _IDLE and not (self._discard or _rolled_back(connection, status)):
            self._discard = True
        self._held = None
        self._source.release(connection, discard=self._discard)


def _run(connection: Connection, sql: str) -> str | None:
    """Execute a command without results and return what the server says it did."""
    with driver.plain_cursor(connection) as cursor:
        cursor.execute(sql)
        return cursor.statusmessage


def _rolled_back(connection: Connection, status: int) -> bool:
    """Roll a transaction back and say whether that put the connection right."""
    if status not in _IN_TRANSACTION:  # a statement is under way, or the connection is closed
        return False
    try:
        _run(connection, "ROLLBACK")
    except psycopg2.Error:
        return False
    return True


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
    if real.async_:
        raise InvalidOption("the psycopg2 connection given as connection= is an asynchronous one")
    return BoundExecutor(real)
