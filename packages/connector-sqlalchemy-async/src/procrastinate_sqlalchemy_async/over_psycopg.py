"""Engines over psycopg 3: values travel within the text, so one message holds all of a query.

On a connection whose owner has other loaders for the types that we read, or another DateStyle than
ISO, a query does not go through SQLAlchemy, which would not read the rows as we do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import psycopg
from psycopg import adapt
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from procrastinate.connector import Notification, Query, Rows
from procrastinate.connector_tools import failures, sockets
from procrastinate.connector_tools.channels import listen_sql
from procrastinate.connector_tools.literals import with_literals
from procrastinate.connector_tools.psycopg_values import (
    ISO,
    PlainRows,
    adapted,
    has_other_loaders,
    read_plain_values,
)
from procrastinate.errors import ConnectorException, database_error, why_read_only
from procrastinate_sqlalchemy_async.leases import Driver, Heard, Send

_IN_TRANSACTION = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_rows = PlainRows(adapt, psycopg.adapters)


class OverPsycopg(Driver):
    """A psycopg connection under SQLAlchemy."""

    name = "psycopg"
    prepares_by_sql = True
    errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error,)
    raw: psycopg.AsyncConnection[Any]

    def __init__(self, raw: Any, *, own: bool, direct: bool) -> None:
        super().__init__(raw, own=own, direct=direct)
        self._autocommit = raw.autocommit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading = -1

    async def begin_session(self, adapter: Any) -> None:
        if not self._autocommit:
            await self.raw.set_autocommit(True)

    async def forget_prepared(self) -> None:
        pass  # psycopg does so by itself

    async def end_session(self, adapter: Any) -> None:
        if not self._autocommit:
            await self.raw.set_autocommit(False)

    async def run(self, query: Query, begin: str, send: Send | None) -> Rows:
        front = begin + self._iso() + query.set_local()
        passes_by = send is None or has_other_loaders(self.raw)
        if send is not None and not passes_by and (query.params or not front):
            return await self._through_sqlalchemy(query, front, send)
        return await self.to_end(self._run(query, front))

    def _iso(self) -> str:
        return "" if (self._reported("DateStyle") or "ISO").startswith("ISO") else ISO

    async def _run(self, query: Query, front: str) -> Rows:
        return _rows.of((await self._sent(front + with_literals(query))).pgresult)

    async def _sent(self, sql: str) -> psycopg.AsyncClientCursor[Any]:
        """Send statements without values beside them, and return the cursor at the last one."""
        cursor = psycopg.AsyncClientCursor(self.raw)
        await cursor.execute(sql.encode())
        while cursor.nextset():
            pass
        return cursor

    async def run_bound(self, query: Query, send: Send) -> Rows:
        if not has_other_loaders(self.raw):
            return await super().run_bound(query, send)
        if not self.in_transaction:
            await self.to_end(send("SELECT 1", None))  # SQLAlchemy begins with its own only
        return await self.to_end(self._run_bound(query))

    async def _run_bound(self, query: Query) -> Rows:
        """Run a query on a caller's connection, which may have another encoding."""
        cursor = psycopg.AsyncClientCursor(self.raw, row_factory=tuple_row)
        read_plain_values(cursor)
        await cursor.execute(query.sql.encode(), adapted(query.params) if query.params else None)
        return [] if cursor.description is None else await cursor.fetchall()

    async def command(self, sql: str) -> str | None:
        return await self.to_end(self._command(sql))

    async def _command(self, sql: str) -> str | None:
        return (await self._sent(sql)).statusmessage

    @staticmethod
    def positional(query: Query) -> tuple[str, Any]:
        return query.sql, (adapted(query.params) if query.params else None)

    def translate(self, exc: Exception, query: Query) -> ConnectorException | None:
        return translate(exc, query, self._reported)

    def _reported(self, setting: str) -> str | None:
        value = self.raw.pgconn.parameter_status(setting.encode()) if self.is_open else None
        return None if value is None else value.decode()

    async def listen(self, channels: Sequence[str], heard: Heard) -> None:
        await self.command(listen_sql(channels))
        pgconn, fileno = self.raw.pgconn, self.fileno
        self._loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                pgconn.consume_input()
                while (said := pgconn.notifies()) is not None:
                    heard(Notification(channel=said.relname.decode(), payload=said.extra.decode()))
            except psycopg.Error as exc:
                self.stop_listening()
                heard(exc)

        self._loop.add_reader(fileno, read)
        self._reading = fileno
        read()  # what came with the answer

    def stop_listening(self) -> None:
        if self._loop is not None and self._reading >= 0:
            self._loop.remove_reader(self._reading)
            self._reading = -1

    @property
    def in_transaction(self) -> bool:
        return self.raw.pgconn.transaction_status in _IN_TRANSACTION

    @property
    def is_open(self) -> bool:
        return not self.raw.closed

    @property
    def is_quiet(self) -> bool:
        return self.raw.pgconn.transaction_status != TransactionStatus.ACTIVE

    def looks_alive(self) -> bool:
        fileno = self.fileno
        return fileno >= 0 and not sockets.readable(fileno)

    def sever(self) -> None:
        fileno = self.fileno
        if fileno >= 0:
            sockets.shut_down(fileno)

    @property
    def fileno(self) -> int:
        try:
            return -1 if self.raw.closed else int(self.raw.fileno())
        except psycopg.Error:
            return -1

    @property
    def server_pid(self) -> int:
        return int(self.raw.info.backend_pid)

    @property
    def encoding(self) -> str | None:
        return self._reported("client_encoding")


def translate(exc: Exception, query: Query, reported: Any) -> ConnectorException | None:
    """Return the error for what psycopg raised on an established connection."""
    if isinstance(exc, psycopg.Error) and exc.sqlstate is not None:
        primary = exc.diag.message_primary or failures.one_line(exc)
        if failures.hides_detail(exc.sqlstate):
            exc.args = (primary,)  # what a traceback shows of the cause
        return failures.server_error(
            primary,
            sqlstate=exc.sqlstate,
            detail=exc.diag.message_detail,
            constraint=exc.diag.constraint_name,
            severity=exc.diag.severity_nonlocalized,
            reason=_why_read_only(reported) if exc.sqlstate == failures.READ_ONLY else "",
        )
    if isinstance(exc, (psycopg.DataError, *failures.VALUE_ERRORS)):
        return failures.value_error(exc, query)
    if isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError) or type(exc) in (
        psycopg.DatabaseError,
        psycopg.Error,
    ):
        return failures.lost(exc)
    if isinstance(exc, psycopg.Error):
        return database_error(failures.one_line(exc))
    return None


def _why_read_only(reported: Any) -> str:
    return why_read_only(
        in_hot_standby=reported("in_hot_standby"),
        by_default=reported("default_transaction_read_only"),
        by_client=None,
    )
