"""Running queries in the caller's own transaction, on a psycopg connection.

Rules

1. psycopg's own cursor runs them, because only that begins the caller's transaction if it is due,
   waits in the connection's lock, and knows its pipeline mode.
2. The cursor's row factory is ours, and values and rows are texts that we read (`rows`): what the
   connection's owner set up is neither used nor changed. Nothing is prepared.
3. A cancellation is raised when the statement has ended. psycopg would cancel that as well, which
   spoils the caller's transaction: its next COMMIT is a rollback, without an error.
4. If dates do not come in ISO format, rows are read in the binary format, as no setting may change.
"""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import tuple_row
from psycopg.types.string import StrDumperUnknown

from procrastinate.connector import Binder, Query, Rows
from procrastinate.connector_tools.calls import to_its_end
from procrastinate.connector_tools.lent import given_back
from procrastinate.errors import ConnectorException, InvalidOption
from procrastinate_psycopg import driver
from procrastinate_psycopg.literals import as_text
from procrastinate_psycopg.rows import RowReader

_ERRORS = (psycopg.Error, *driver.VALUE_ERRORS)
_MAX_PROXIES = 20  # around one connection
C = TypeVar("C", bound=psycopg.BaseConnection[Any])


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

    def _statement(self, query: Query) -> tuple[str, list[str | None] | None]:
        sql, values = query.numbered()
        if not query.params:
            return sql, None
        return sql, [None if (text := as_text(each)) is None else _Text(text) for each in values]

    @property
    def _in_pipeline(self) -> bool:
        return bool(self._pgconn.pipeline_status != PipelineStatus.OFF)

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
            sql, values = self._statement(query)
            with psycopg.RawCursor(self._connection, row_factory=tuple_row) as cursor:
                _prepared(cursor)
                cursor.execute(
                    sql.encode(), values, prepare=False, binary=self._binary and values is not None
                )
                if self._in_pipeline:
                    _fetched(cursor)
                return self._rows(cursor)
        except _ERRORS as exc:
            raise self._translated(exc, query) from exc


class AsyncBoundExecutor(_Bound):
    """The same for an asynchronous connection."""

    async def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        try:
            return await to_its_end(self._executed(query), lambda: driver.sever(self._pgconn))
        except _ERRORS as exc:
            raise self._translated(exc, query) from exc

    async def _executed(self, query: Query) -> Rows:
        sql, values = self._statement(query)
        async with psycopg.AsyncRawCursor(self._connection, row_factory=tuple_row) as cursor:
            _prepared(cursor)
            await cursor.execute(
                sql.encode(), values, prepare=False, binary=self._binary and values is not None
            )
            if self._in_pipeline:
                await _fetched_async(cursor)
            return self._rows(cursor)


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
