"""Executors on SQLAlchemy connections: a session of our own, or the caller's transaction.

Rules

1. The connection of a session is in autocommit mode: `procrastinate.connector_tools.sessions` sends
   BEGIN with the first query. A connection to be discarded is invalidated.
2. SQLAlchemy's own transaction, which it begins by itself for a statement that it sees, is ended
   in the same way as ours, so that its events and its log tell what happened.
3. In the caller's transaction only the cursor factory is set aside, for one statement at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

from psycopg2 import extensions
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import scoped_session

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools import sessions as connector_tools
from procrastinate.errors import ConnectorException, InvalidOption
from procrastinate_psycopg2 import driver
from procrastinate_sqlalchemy import engines
from procrastinate_sqlalchemy.engines import Connection, Lease

_IDLE = extensions.TRANSACTION_STATUS_IDLE
_INERROR = extensions.TRANSACTION_STATUS_INERROR
_IN_TRANSACTION = (extensions.TRANSACTION_STATUS_INTRANS, _INERROR)
# Against what the engine's own options may say: no server-side cursors, and without parameters
# the text goes as it is.
_OPTIONS: Mapping[str, Any] = {"no_parameters": True, "stream_results": False}


class SessionLease(Lease):
    """A connection of an engine, as sessions use it."""

    __slots__ = ("_spoiled", "succeeded")

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        #: Whether the block ended well: then SQLAlchemy's own transaction is committed (rule 2).
        self.succeeded = False
        self._spoiled = False  # whether our own transaction was not

    @property
    def in_transaction(self) -> bool:
        return self.real.info.transaction_status in _IN_TRANSACTION

    @property
    def reusable(self) -> bool:
        return self.real.info.transaction_status == _IDLE  # "unknown" for a closed one

    def run(self, query: Query, begin: str) -> Rows:
        try:
            return self._run(query, begin + query.set_local())
        except ConnectorException:
            self._spoiled = self._spoiled or bool(begin)
            raise

    def _run(self, query: Query, prefix: str) -> Rows:
        if self.connection.invalidated:  # SQLAlchemy would connect again, in mid-session
            raise engines.lost(query)
        if self.watched:
            return run_query(self.connection, query, prefix)
        return driver.run_query(self.real, query, prefix)

    def end(self, command: str) -> str:
        if self.real.info.transaction_status == _INERROR:
            command = "ROLLBACK"  # as the server would
        self._spoiled = True
        self._run(Query(command.lower(), command), "")
        self._spoiled = command != "COMMIT"
        return command

    def sever(self) -> None:
        driver.sever(self.real)

    def give_back(self, *, discard: bool) -> None:
        """End SQLAlchemy's own transaction, and give the connection back."""
        connection = self.connection
        try:
            if discard and not connection.invalidated:
                connection.invalidate()
            if self.succeeded and not (self._spoiled or connection.invalidated):
                connection.commit()
            else:
                connection.rollback()
        except sa_exc.SQLAlchemyError:
            connection.invalidate()
        finally:
            self.close()


@dataclass(slots=True, eq=False)
class Source:
    """An engine, and whose it is."""

    engine: Engine
    own: bool
    #: Whether this belongs to the process that ours was forked from.
    inherited: bool = False

    def acquire(self, timeout: float | None = None) -> SessionLease:
        """Return a connection. Raises `PoolTimeout` and `ConnectionFailed`."""
        if timeout is not None:
            engines.wait_for_room(self.engine, timeout)
        return SessionLease(self.engine)

    def release(self, lease: SessionLease, *, discard: bool = False) -> None:
        """Give a connection back, or close it."""
        lease.give_back(discard=discard)

    def close(self) -> None:
        """Dispose of our own engine; the application's stays as it is."""
        if self.own:
            self.engine.dispose()

    def discard_idle(self) -> None:
        """Close idle connections, if they are ours."""
        if self.own:
            self.engine.dispose()


class Session(connector_tools.Session[SessionLease]):
    """One connection for the length of a block, also as its executor."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lease is not None:
            self._lease.succeeded = kind is None
        super().__exit__(kind, exc, traceback)


def run_query(connection: Connection, query: Query, prefix: str = "") -> Rows:
    """Execute one query in the connection's transaction. Raises `ConnectorException` only."""
    try:
        sql, params = driver.adapted(query)
        result = connection.exec_driver_sql(prefix + sql, cast(Any, params), _OPTIONS)
        # The rows as the cursor gives them: tuples, which SQLAlchemy's own rows need not be.
        return cast(Any, result.cursor).fetchall() if result.returns_rows else []
    except Exception as exc:
        error = engines.error_of(exc, query)
        if error is None:
            raise
        raise error from (engines.driver_error(exc) or exc)


class BoundExecutor:
    """Executes queries in the transaction that the caller has, or SQLAlchemy begins for them."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Callable[[], Connection]) -> None:
        self._connection = connection

    def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        try:
            connection = self._connection()
            if connection.invalidated:
                raise engines.lost(query)
            real = engines.real_connection(connection)
        except sa_exc.SQLAlchemyError as exc:
            raise _unusable(exc, query) from (engines.driver_error(exc) or exc)
        theirs = real.cursor_factory
        real.cursor_factory = driver.PlainCursor
        try:
            return run_query(connection, query)
        finally:
            real.cursor_factory = theirs


def _unusable(exc: sa_exc.SQLAlchemyError, query: Query) -> Exception:
    cause = engines.driver_error(exc)
    if cause is not None:
        return driver.connect_error(cause)
    return ConnectorException(
        f"{query.name}: the connection or session given as connection= cannot be used: "
        f"{engines.first_line(exc)}"
    )


def bound(connection: Any) -> BoundExecutor:
    """Return an executor in the caller's transaction. Raises `InvalidOption` for anything else."""
    if isinstance(connection, Connection):
        return _bound_connection(connection)
    if isinstance(connection, scoped_session):
        connection = connection()
    if isinstance(connection, OrmSession):
        return _bound_session(connection)
    raise InvalidOption(
        "connection= takes an SQLAlchemy Connection or Session, "
        f"not {type(connection).__module__}.{type(connection).__qualname__}"
    )


def _bound_connection(connection: Connection) -> BoundExecutor:
    engines.check_dialect(connection.dialect, "the Connection given as connection=")
    if connection.closed:
        raise InvalidOption("the SQLAlchemy Connection given as connection= is closed")
    return BoundExecutor(lambda: connection)


def _bound_session(session: OrmSession) -> BoundExecutor:
    try:
        bind = session.get_bind()
    except sa_exc.SQLAlchemyError as exc:
        raise InvalidOption(
            "the SQLAlchemy Session given as connection= has no engine of its own: "
            "give session.connection(...) of the right one"
        ) from exc
    engines.check_dialect(bind.dialect, "the Session given as connection=")
    return BoundExecutor(session.connection)
