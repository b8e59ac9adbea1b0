"""Running queries in the caller's own transaction, on a psycopg connection.

Rules

1. psycopg's own cursor runs them, because only that begins the caller's transaction if it is due,
   waits in the connection's lock, and knows its pipeline mode.
2. The cursor's row factory is ours, and values and rows are texts that we read (`rows`): what the
   connection's owner set up is neither used nor changed. Nothing is prepared.
3. A cancellation is raised when the statement has ended. psycopg would cancel that as well, which
   spoils the caller's transaction: its next COMMIT is a rollback, without an error.
4. If dates do not come in ISO format, rows are read in the binary format, as no setting may change.
   Without values there may be several statements, which have none: then their text is read.
5. In pipeline mode, an error may be of an earlier statement, whose result the owner has not yet
   fetched. So a mark is sent before ours: if it has no result, the error is not ours.
6. In pipeline mode without a transaction block, a statement that is refused undoes all before it
   since the last synchronisation. Core sends SAVEPOINT to see whether there is a block. So it is
   answered from what the driver knows, and only sent if there is one.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.string import StrDumperUnknown

from procrastinate.connector import Binder, Query, Rows
from procrastinate.connector_tools.calls import to_its_end
from procrastinate.connector_tools.lent import given_back
from procrastinate.errors import ConnectorException, InvalidOption, database_error
from procrastinate_psycopg import driver
from procrastinate_psycopg.literals import as_text
from procrastinate_psycopg.rows import RowReader

_ERRORS = (psycopg.Error, *driver.VALUE_ERRORS)
_MAX_PROXIES = 20  # around one connection
C = TypeVar("C", bound=psycopg.BaseConnection[Any])
_MARK = b"SELECT 1"
_NEEDS_BLOCK = re.compile(r"\s*savepoint\b", re.IGNORECASE)
_NO_BLOCK = "25P01"  # the server's no_active_sql_transaction


class _Text(str):
    """A value of ours: the type that our dumper is registered for."""

    __slots__ = ()


class _Bound:
    """What both kinds of executor do."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._reader = RowReader(connection)
        self._binary = not driver.has_iso_dates(self._pgconn)

    def _statement(self, query: Query) -> tuple[bytes, list[str | None] | None, bool]:
        """Return what a cursor's ``execute`` takes: the text, the values, the format of rows."""
        sql, values = query.numbered()
        if not query.params:
            return sql.encode(), None, False
        texts = (as_text(each) for each in values)
        return sql.encode(), [None if each is None else _Text(each) for each in texts], self._binary

    @property
    def _in_pipeline(self) -> bool:
        return bool(self._pgconn.pipeline_status != PipelineStatus.OFF)

    @property
    def _has_pending(self) -> bool:
        return bool(self._pgconn.transaction_status == TransactionStatus.ACTIVE)

    def _needs_block(self, query: Query) -> bool:
        """Return whether rule 6 is about a query."""
        return bool(self._connection.autocommit and _NEEDS_BLOCK.match(query.sql))

    def _check_block(self) -> None:
        """Raise what the server would, unless there is a transaction block (rule 6)."""
        if driver.is_idle(self._pgconn):
            raise database_error("there is no transaction block", sqlstate=_NO_BLOCK)

    def _is_theirs(self, exc: Exception, mark: Any) -> bool:
        """Return whether an error in pipeline mode is of an earlier statement (rule 5)."""
        if self._pgconn.status != ConnStatus.OK:
            return False
        is_unanswered = mark is not None and mark.pgresult is None
        return isinstance(exc, psycopg.errors.PipelineAborted) or is_unanswered

    def _rows(self, cursor: Any) -> Rows:
        result = cursor.pgresult
        return [] if result is None else self._reader.rows(result)

    def _translated(self, exc: Exception, query: Query) -> ConnectorException:
        return driver.translate(exc, query, self._pgconn)


def _prepared(cursor: Any) -> None:
    cursor.adapters.register_dumper(_Text, StrDumperUnknown)


class BoundExecutor(_Bound):
    """Executes queries in the transaction that the caller has, or begins, on a connection."""

    def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        try:
            with self._cursor() as cursor:
                if self._in_pipeline:
                    self._execute_in_pipeline(cursor, query)
                else:
                    self._execute(cursor, query)
                return self._rows(cursor)
        except _ERRORS as exc:
            raise self._translated(exc, query) from exc

    def _cursor(self) -> psycopg.RawCursor[Any]:
        return psycopg.RawCursor(self._connection, row_factory=tuple_row)

    def _execute(self, cursor: psycopg.RawCursor[Any], query: Query) -> None:
        sql, values, binary = self._statement(query)
        _prepared(cursor)
        cursor.execute(sql, values, prepare=False, binary=binary)

    def _execute_in_pipeline(self, cursor: psycopg.RawCursor[Any], query: Query) -> None:
        mark = self._cursor() if self._has_pending else None
        try:
            if mark is not None:
                mark.execute(_MARK, prepare=False)
            if self._needs_block(query):
                if mark is not None:
                    _fetched(mark)
                self._check_block()
            self._execute(cursor, query)
            _fetched(cursor)
        except psycopg.Error as exc:
            with suppress(psycopg.Error):
                _fetched(cursor)  # or what becomes of ours is raised when its owner waits next
            if self._is_theirs(exc, mark):
                raise driver.earlier_failure(exc) from exc
            raise


class AsyncBoundExecutor(_Bound):
    """The same for an asynchronous connection."""

    async def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        try:
            return await to_its_end(self._executed(query), lambda: driver.sever(self._pgconn))
        except _ERRORS as exc:
            raise self._translated(exc, query) from exc

    async def _executed(self, query: Query) -> Rows:
        async with self._cursor() as cursor:
            if self._in_pipeline:
                await self._execute_in_pipeline(cursor, query)
            else:
                await self._execute(cursor, query)
            return self._rows(cursor)

    def _cursor(self) -> psycopg.AsyncRawCursor[Any]:
        return psycopg.AsyncRawCursor(self._connection, row_factory=tuple_row)

    async def _execute(self, cursor: psycopg.AsyncRawCursor[Any], query: Query) -> None:
        sql, values, binary = self._statement(query)
        _prepared(cursor)
        await cursor.execute(sql, values, prepare=False, binary=binary)

    async def _execute_in_pipeline(self, cursor: psycopg.AsyncRawCursor[Any], query: Query) -> None:
        mark = self._cursor() if self._has_pending else None
        try:
            if mark is not None:
                await mark.execute(_MARK, prepare=False)
            if self._needs_block(query):
                if mark is not None:
                    await _fetched_async(mark)
                self._check_block()
            await self._execute(cursor, query)
            await _fetched_async(cursor)
        except psycopg.Error as exc:
            with suppress(psycopg.Error):
                await _fetched_async(cursor)
            if self._is_theirs(exc, mark):
                raise driver.earlier_failure(exc) from exc
            raise


def _fetched(cursor: psycopg.RawCursor[Any]) -> None:
    """Wait for a result in pipeline mode."""
    try:
        cursor.fetchone()
    except psycopg.ProgrammingError as exc:
        if exc.sqlstate is not None:
            raise
        # "The last operation didn't produce records": then there are none to read.


async def _fetched_async(cursor: psycopg.AsyncRawCursor[Any]) -> None:
    try:
        await cursor.fetchone()
    except psycopg.ProgrammingError as exc:
        if exc.sqlstate is not None:
            raise


def _real(connection: Any, kind: type[C]) -> C:
    """Return the connection inside any transparent proxies (``__wrapped__``).

    Raises `InvalidOption` if there is none, or if it is closed.
    """
    real = connection
    for _ in range(_MAX_PROXIES):  # some objects have any attribute, and that again, without end
        if issubclass(type(real), kind):  # isinstance() believes what a proxy claims
            break
        try:
            real = real.__wrapped__
        except Exception:  # AttributeError, or whatever a proxy without a target raises
            raise InvalidOption(
                f"{type(connection).__qualname__} is no psycopg {kind.__qualname__}"
            ) from None
    if not issubclass(type(real), kind):
        raise InvalidOption(f"{type(connection).__qualname__} is no psycopg {kind.__qualname__}")
    if real.closed:
        raise InvalidOption("the psycopg connection given as connection= is closed")
    # psycopg_pool sets it to None on a connection that lies in a pool; others do not have it.
    if getattr(real, "_pool", real) is None:
        raise given_back("psycopg connection")
    found: C = real
    return found


def bind(connection: Any) -> BoundExecutor:
    """Return an executor on the caller's connection. Raises `InvalidOption` for anything else."""
    return BoundExecutor(_real(connection, psycopg.Connection))


def bind_async(connection: Any) -> AsyncBoundExecutor:
    """Return an executor on the caller's connection. Raises `InvalidOption` for anything else."""
    return AsyncBoundExecutor(_real(connection, psycopg.AsyncConnection))


CONNECTION = Binder("psycopg connection", bind=bind)
ASYNC_CONNECTION = Binder("psycopg AsyncConnection", bind_async=bind_async)
