"""Executors on aiopg connections: a session of our own, or the caller's transaction.

Rules

1. aiopg connections are in autocommit mode, so one query is one round trip. A transaction's BEGIN
   travels in one message with its first query.
2. A connection on which anything is doubtful is closed and not given back: it broke, it was
   severed, it stands on a read-only server, a statement is still under way or left a setting
   behind, a rollback failed. After the second and the third of these the pool's idle connections
   are closed too.
3. A COMMIT that the server turned into a rollback is an error: an earlier statement had failed and
   the block went on.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import aiopg

from procrastinate.connector import Query, Rows
from procrastinate.errors import ConnectionLost, ConnectorException, InvalidOption
from procrastinate_aiopg.held import Held
from procrastinate_aiopg.pools import Source
from procrastinate_psycopg2.driver import READ_ONLY, sever
from procrastinate_psycopg2.transactions import LazyTransaction, aborted


class Session:
    """One connection for the length of a block, also as its executor."""

    __slots__ = ("_held", "_on_loan", "_severed", "_source", "_timeout", "_transaction")

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
        self._held: Held | None = None  # until the block ends
        self._on_loan: Held | None = None  # until it is given back: COMMIT may wait as well
        self._severed = False

    async def __aenter__(self) -> Session:
        self._held = self._on_loan = await self._source.acquire(self._timeout)
        return self

    async def execute(self, query: Query, /) -> Rows:
        """Execute one query. Raises `ConnectorException`."""
        held = self._held
        if held is None:
            raise ConnectorException(f"{query.name}: this session has ended")
        prefix = self._transaction.prefix()
        error: ConnectorException | None = None
        try:
            return await held.run(query, prefix + query.set_local())
        except ConnectorException as exc:
            error = exc
            if isinstance(exc, ConnectionLost):
                self._look_around(exc)
            raise
        finally:
            if prefix:
                self._transaction.after_prefix(error, in_transaction=held.in_transaction)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        try:
            if kind is None and self._transaction.is_to_commit():
                await self._commit(held)
        finally:
            await self._give_back(held, wait=not isinstance(exc, GeneratorExit))

    async def _give_back(self, held: Held, *, wait: bool) -> None:
        """Release a connection, after a rollback where it needs one and there is time to wait."""
        try:
            if wait and held.in_transaction and not held.connection.isexecuting():
                await _roll_back(held)
        finally:
            self._on_loan = None
            self._source.release(held)

    def sever(self) -> None:
        """Shut the connection down while a statement waits on it."""
        held = self._on_loan
        if held is not None:
            self._severed = held.broken = True
            sever(held.raw)

    async def _commit(self, held: Held) -> None:
        try:
            await held.command("COMMIT")
        except ConnectionLost as exc:
            self._look_around(exc)
            raise
        if held.cursor.statusmessage == "ROLLBACK":
            raise aborted()

    def _look_around(self, exc: ConnectionLost) -> None:
        if self._severed or exc.sqlstate == READ_ONLY:
            self._source.discard_idle()


async def _roll_back(held: Held) -> None:
    try:
        await held.command("ROLLBACK")
    except ConnectorException:
        held.broken = True


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
        return await self._held.run(query)


def bound(connection: Any) -> BoundExecutor:
    """Return an executor on the caller's connection. Raises `InvalidOption` for anything else."""
    if not isinstance(connection, aiopg.Connection):
        kind = type(connection)
        raise InvalidOption(
            f"connection= takes an aiopg connection here, not {kind.__module__}.{kind.__qualname__}"
        )
    if connection.closed:
        raise InvalidOption("the aiopg connection given as connection= is closed")
    return BoundExecutor(connection)
