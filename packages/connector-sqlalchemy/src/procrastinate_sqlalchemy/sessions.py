"""Executors on SQLAlchemy connections: a session of our own, or the caller's transaction.

Rules

1. The connection of a session is in autocommit mode: `procrastinate.connector_tools.sessions` sends
   BEGIN with the first query. A connection to be discarded is invalidated.
2. SQLAlchemy's own transaction, which it begins by itself for a statement that it sees, is ended
   in the same way as ours, so that its events and its log tell what happened.
3. In the caller's transaction only psycopg2's cursor factory is set aside, for one statement at a
   time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import scoped_session

from procrastinate.connector import Query, Row, Rows
from procrastinate.connector_tools import plans
from procrastinate.connector_tools import sessions as connector_tools
from procrastinate.connector_tools.failures import VALUE_ERRORS, unreadable
from procrastinate.connector_tools.plans import Permission, Plans
from procrastinate.errors import ConnectorException, InvalidOption
from procrastinate_sqlalchemy import engines
from procrastinate_sqlalchemy.drivers import Driver, Send, check_dialect, driver_of
from procrastinate_sqlalchemy.engines import Connection, Lease

# Against what the owner's options may say: no server-side cursors and no rows held back by
# SQLAlchemy's own buffer (``yield_per`` would bring both back). Without parameters the text goes as
# it is.
_OPTIONS: Mapping[str, Any] = {"no_parameters": True, "stream_results": False, "yield_per": None}


class SessionLease(Lease):
    """A connection of an engine, as sessions use it."""

    __slots__ = ("_plans", "_spoiled", "broken", "succeeded")

    def __init__(self, engine: Engine, permission: Permission | None = None) -> None:
        super().__init__(engine)
        #: What the server keeps for the connection; None: nothing, because it is not ours alone, or
        #: because an event of the engine looks at what is sent.
        self._plans = (
            None if permission is None or self.watched else _plans_of(self.connection, permission)
        )
        #: Not to be given out again, whatever its state.
        self.broken = False
        #: Whether the block ended well: then SQLAlchemy's own transaction is committed (rule 2).
        self.succeeded = False
        self._spoiled = False  # whether our own transaction was not

    @property
    def in_transaction(self) -> bool:
        return self.over.in_transaction(self.real)

    @property
    def reusable(self) -> bool:
        return not self.broken and self.over.is_idle(self.real)

    @property
    def server_pid(self) -> int:
        """The process id that the server, or a pooler, has told."""
        pid: int = self.real.info.backend_pid
        return pid

    def run(self, query: Query, begin: str) -> Rows:
        try:
            if self._plans is None:
                return self._run(query, begin + query.set_local())
            return plans.run(self, self._plans, query, begin)
        except ConnectorException:
            self._spoiled = self._spoiled or bool(begin)
            raise

    def send(self, query: Query, front: str, sql: str) -> Rows:
        """Send ``front`` and, in place of the query's text, ``sql`` with the query's values."""
        try:
            return self._run(Query(query.name, sql, query.params), front)
        except ConnectorException as exc:
            if self._plans is not None and self._plans.refused(exc):
                self.broken = True
            raise

    def _run(self, query: Query, prefix: str) -> Rows:
        if self.connection.invalidated:  # SQLAlchemy would connect again, in mid-session
            raise engines.lost(query)
        if not self.watched:
            return self.over.run(self.real, query, prefix, None)
        with engines.errors_of(query, self.over):
            return self.over.run(self.real, query, prefix, sending(self.connection))

    def end(self, command: str) -> str:
        if self.over.has_failed(self.real):
            command = "ROLLBACK"  # as the server would
        self._spoiled = True
        self._run(Query(command.lower(), command), "")
        self._spoiled = command != "COMMIT"
        return command

    def sever(self) -> None:
        self.over.sever(self.real)

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


#: Where SQLAlchemy keeps, with each connection to the server, what we know of it.
_KEY = "procrastinate_plans"


def _plans_of(connection: Connection, permission: Permission) -> Plans:
    info = connection.info
    known = info.get(_KEY)
    if not isinstance(known, Plans):
        known = info[_KEY] = Plans(permission)
    return known


@dataclass(slots=True, eq=False)
class Source:
    """An engine, and whose it is."""

    engine: Engine
    own: bool
    #: Whether this belongs to the process that ours was forked from.
    inherited: bool = False
    permission: Permission = field(default_factory=Permission)

    def acquire(self, timeout: float | None = None) -> SessionLease:
        """Return a connection. Raises `PoolTimeout` and `ConnectionFailed`."""
        if timeout is not None:
            engines.wait_for_room(self.engine, timeout)
        return SessionLease(self.engine, self.permission if self.own else None)

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


def sending(connection: Connection) -> Send:
    """Return what executes SQL through SQLAlchemy, in the connection's transaction."""

    def send(sql: str, values: Any) -> list[Row]:
        result = connection.exec_driver_sql(sql, values, _OPTIONS)
        # The rows as the cursor gives them: tuples, which SQLAlchemy's own rows need not be.
        try:
            return cast(Any, result.cursor).fetchall() if result.returns_rows else []
        except VALUE_ERRORS as exc:
            raise unreadable(exc) from exc

    return send


class BoundExecutor:
    """Executes queries in the transaction that the caller has, or SQLAlchemy begins for them."""

    __slots__ = ("_connection", "_over")

    def __init__(self, connection: Callable[[], Connection], over: Driver) -> None:
        self._connection = connection
        self._over = over

    def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        try:
            connection = self._connection()
            if connection.invalidated:
                raise engines.lost(query)
            real = engines.real_connection(connection)
        except sa_exc.SQLAlchemyError as exc:
            cause = engines.driver_error(exc, self._over)
            raise _unusable(exc, query, self._over) from (cause or exc)
        self._over.check_bound(real)
        with engines.errors_of(query, self._over):
            return self._over.run_bound(real, query, sending(connection))


def _unusable(exc: sa_exc.SQLAlchemyError, query: Query, over: Driver) -> Exception:
    cause = engines.driver_error(exc, over)
    if cause is not None:
        return over.connect_error(cause)
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
    over = _driver(connection.dialect, "the Connection given as connection=")
    if connection.closed:
        raise InvalidOption("the SQLAlchemy Connection given as connection= is closed")
    return BoundExecutor(lambda: connection, over)


def _bound_session(session: OrmSession) -> BoundExecutor:
    try:
        bind = session.get_bind()
    except sa_exc.SQLAlchemyError as exc:
        raise InvalidOption(
            "the SQLAlchemy Session given as connection= has no engine of its own: "
            "give session.connection(...) of the right one"
        ) from exc
    over = _driver(bind.dialect, "the Session given as connection=")
    return BoundExecutor(session.connection, over)


def _driver(dialect: Dialect, what: str) -> Driver:
    if dialect.is_async:
        raise InvalidOption(
            f"{what} is what run_sync() passes, of an asynchronous engine: outside of run_sync(),"
            " give the AsyncConnection or AsyncSession itself, as in `await"
            " task.configure(connection=async_session).defer_async(...)`"
            " (procrastinate-sqlalchemy-async)"
        )
    check_dialect(dialect, what)
    return driver_of(dialect)
