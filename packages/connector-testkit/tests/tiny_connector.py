"""A whole connector in some ninety lines: psycopg2, and a new connection for each session.

It is slow and it is right, and the base of the broken ones in `broken_connectors`.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import psycopg2
import psycopg2.extensions as ext

from procrastinate import errors
from procrastinate.connector import (
    Executor,
    Query,
    Rows,
    SessionExecutor,
    SyncConnector,
    begin,
)

# Rule 2: numeric as float, bytea as bytes; the rest is psycopg2's own choice already.
FLOAT = ext.new_type(ext.DECIMAL.values, "FLOAT", ext.FLOAT)


class TinyConnector(SyncConnector):
    contract: ClassVar[int] = 2
    is_open = False

    def __init__(self, dsn: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.dsn = dsn

    @classmethod
    def from_url(cls, url: str) -> TinyConnector:
        scheme, separator, address = url.partition("://")
        try:
            ext.parse_dsn(f"postgresql://{address}")
            if not (scheme and separator) or "port" in address:
                raise ValueError(url)
        except (psycopg2.Error, ValueError) as exc:
            raise errors.ConfigurationError(f"not a connector's URL: {url!r}") from exc
        return cls(f"postgresql://{address}")

    def open(self, pool: Any = None) -> None:
        if pool is not None:
            raise errors.InvalidOption(f"it takes no pool, and got {pool!r}")
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    @contextmanager
    def session(
        self, *, transaction: bool = False, read_only: bool = False, timeout: float | None = None
    ) -> Iterator[SessionExecutor]:
        begin(transaction=transaction, read_only=read_only)
        if not self.is_open:
            raise errors.AppNotOpen("the connector is not open")
        connection = self.take()
        try:
            connection.autocommit = not transaction
            with translated():
                if read_only:
                    self.run(connection, "SET TRANSACTION READ ONLY")
                yield self.executor(connection, of_session=True)
                if transaction:
                    self.commit(connection)
        finally:
            self.give_back(connection)

    def run(self, connection: Any, sql: str) -> None:
        with ext.cursor(connection) as cursor:
            cursor.execute(sql)

    def commit(self, connection: Any) -> None:
        if connection.info.transaction_status == ext.TRANSACTION_STATUS_INERROR:
            raise errors.ConnectorException("an earlier statement had failed", sqlstate="25P02")
        connection.commit()

    def take(self) -> Any:
        try:
            return psycopg2.connect(self.dsn, client_encoding="UTF8")
        except psycopg2.Error as exc:
            raise errors.ConnectionFailed("cannot connect", sqlstate=exc.pgcode) from exc

    def give_back(self, connection: Any) -> None:
        connection.close()

    def bind(self, connection: Any) -> Executor:
        if not isinstance(connection, ext.connection):
            raise errors.InvalidOption(f"not a psycopg2 connection: {connection!r}")
        if (said := connection.get_parameter_status("client_encoding")) != connection.encoding:
            raise errors.InvalidOption(f"psycopg2 has not noticed a change to {said}")
        return self.executor(connection)

    def executor(self, connection: Any, *, of_session: bool = False) -> SessionExecutor:
        return TinyExecutor(connection, of_session=of_session)


class TinyExecutor:
    def __init__(self, connection: Any, *, of_session: bool = False) -> None:
        self.connection = connection
        self.of_session = of_session  # else in the caller's transaction, with the caller's settings

    def execute(self, query: Query, /) -> Rows:
        with translated(), ext.cursor(self.connection) as cursor:  # rule 4: a plain cursor
            return self.run(cursor, query)

    def run(self, cursor: Any, query: Query) -> Rows:
        ext.register_type(FLOAT, cursor)
        sql = query.set_local() + query.sql if self.of_session else query.sql
        cursor.execute(sql, {k: _sent(v) for k, v in query.params.items()} or None)
        return [tuple(map(_received, row)) for row in cursor] if cursor.description else []

    def sever(self) -> None:
        with (
            contextlib.suppress(psycopg2.Error, OSError),  # it is closed already
            socket.socket(fileno=os.dup(self.connection.fileno())) as shared,
        ):
            shared.shutdown(socket.SHUT_RDWR)


def _sent(value: Any) -> Any:
    if isinstance(value, int) and value < 0:
        return str(value)  # '-5'::smallint, where -5::smallint negates what may be out of range
    return [_sent(each) for each in value] if isinstance(value, list | tuple) else value


def _received(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as exc:
        if exc.pgcode is not None:
            raise errors.database_error(
                str(exc),
                sqlstate=exc.pgcode,
                constraint=exc.diag.constraint_name,
                severity=exc.diag.severity_nonlocalized,
            ) from exc
        if isinstance(exc, psycopg2.OperationalError | psycopg2.InterfaceError):
            raise errors.ConnectionLost("the connection broke") from exc
        raise errors.ConnectorException("the driver failed") from exc
    except errors.ProcrastinateException:  # some are a ValueError too
        raise
    except ValueError as exc:
        raise errors.InvalidData("a text cannot be sent") from exc
