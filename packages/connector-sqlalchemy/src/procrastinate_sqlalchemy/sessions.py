"""Executors on SQLAlchemy connections: a session of our own, or the caller's transaction.

Rules

1. The connection of a session is in autocommit mode, so one query is one round trip. A
   transaction's BEGIN travels in one message with its first query.
2. A connection on which anything is doubtful is invalidated and not given back: it broke, it was
   severed, it stands on a read-only server, a rollback failed, or a statement left a setting
   behind. After the second and the third of these our own engine's idle connections are closed too.
3. SQLAlchemy's own transaction, which it begins by itself for a statement that it sees, is ended
   in the same way as ours, so that its events and its log tell what happened.
4. In the caller's transaction only the cursor factory is set aside, for one statement at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, cast

from psycopg2 import extensions
from sqlalchemy import exc as sa_exc
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import scoped_session

from procrastinate.connector import Query, Rows
from procrastinate.errors import ConnectionLost, ConnectorException, InvalidOption
from procrastinate_psycopg2 import driver
from procrastinate_psycopg2.transactions import LazyTransaction, aborted
from procrastinate_sqlalchemy import engines
from procrastinate_sqlalchemy.engines import Connection, Lease, Source

_IDLE = extensions.TRANSACTION_STATUS_IDLE
_INERROR = extensions.TRANSACTION_STATUS_INERROR
_IN_TRANSACTION = (extensions.TRANSACTION_STATUS_INTRANS, _INERROR)
# Against what the engine's own options may say: no server-side cursors, and without parameters
# the text goes as it is.
_OPTIONS: Mapping[str, Any] = {"no_parameters": True, "stream_results": False}


class Session:
    """One connection for the length of a block, also as its executor."""

    __slots__ = (
        "_discard",
        "_lease",
        "_on_loan",
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
        self._lease: Lease | None = None  # until the block ends
        self._on_loan: Lease | None = None  # until it is given back: COMMIT may wait as well
        self._discard = False
        self._severed = False

    def __enter__(self) -> Session:
        if self._timeout is not None:
            engines.wait_for_room(self._source.engine, self._timeout)
        self._lease = self._on_loan = Lease(self._source.engine)
        return self

    def execute(self, query: Query, /) -> Rows:
        """Execute one query. Raises `ConnectorException`."""
        lease = self._lease
        if lease is None:
            raise ConnectorException(f"{query.name}: this session has ended")
        prefix = self._transaction.prefix()
        self._discard = self._discard or driver.leaves_traces(query.sql)
        error: ConnectorException | None = None
        try:
            return self._run(lease, query, prefix)
        except ConnectorException as exc:
            error = exc
            raise
        finally:
            if prefix:
                in_transaction = lease.real.info.transaction_status != _IDLE
                self._transaction.after_prefix(error, in_transaction=in_transaction)

    def sever(self) -> None:
        """Shut the connection down while a statement waits on it; from any thread."""
        lease = self._on_loan
        if lease is not None:
            self._severed = True
            driver.sever(lease.real)

    def _run(self, lease: Lease, query: Query, prefix: str = "") -> Rows:
        prefix += query.set_local()
        if lease.connection.invalidated:  # SQLAlchemy would connect again, in mid-session
            raise engines.lost(query)
        try:
            if lease.watched:
                return run_query(lease.connection, query, prefix)
            return driver.run_query(lease.real, query, prefix)
        except ConnectionLost as exc:
            self._discard = True
            if self._severed or exc.sqlstate == driver.READ_ONLY:
                self._source.discard_idle()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is None or self._source.inherited:
            return
        try:
            if kind is None and self._transaction.is_to_commit():
                self._commit(lease)
        except BaseException:
            self._give_back(lease, succeeded=False)
            raise
        self._give_back(lease, succeeded=kind is None)

    def _commit(self, lease: Lease) -> None:
        if lease.real.info.transaction_status == _INERROR:
            raise aborted()
        self._run(lease, _COMMIT)

    def _give_back(self, lease: Lease, *, succeeded: bool) -> None:
        connection = lease.connection
        self._discard = self._discard or self._severed
        try:
            status = lease.real.info.transaction_status  # "unknown" for one that is closed
            if status in _IN_TRANSACTION and not self._discard:
                self._roll_back(lease)
            elif status != _IDLE:
                self._discard = True
            if self._discard and not connection.invalidated:
                connection.invalidate()
            if succeeded and not connection.invalidated:
                connection.commit()
            else:
                connection.rollback()
        except sa_exc.SQLAlchemyError:
            connection.invalidate()
        finally:
            self._on_loan = None
            lease.close()

    def _roll_back(self, lease: Lease) -> None:
        try:
            self._run(lease, _ROLLBACK)
        except ConnectorException:
            self._discard = True


_COMMIT = Query("commit", "COMMIT")
_ROLLBACK = Query("rollback", "ROLLBACK")


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
