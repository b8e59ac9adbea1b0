"""Connectors with one fault each, made from `TinyConnector`; `faults` says how they are found."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar, TypeVar, cast

import psycopg2
import psycopg2.extensions as ext
import psycopg2.extras
import psycopg2.pool
from tiny_connector import TinyConnector, TinyExecutor, translated

from procrastinate import errors
from procrastinate.connector import Executor, Query, Rows, SessionExecutor, begin

T = TypeVar("T")

# --- Statements and rows ------------------------------------------------------------------------


class WithExecutor(TinyConnector):
    """The base of those whose executor is at fault."""

    broken_executor: type[TinyExecutor]

    def executor(self, connection: Any, *, of_session: bool = False) -> SessionExecutor:
        return self.broken_executor(connection, of_session=of_session)


class DictRows(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            rows = super().run(cursor, query)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in rows]  # type: ignore[misc]


class NaiveMoments(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            return [
                tuple(v.replace(tzinfo=None) if hasattr(v, "tzinfo") else v for v in row)
                for row in super().run(cursor, query)
            ]


class DecimalNumbers(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            def exact(value: Any) -> Any:
                return Decimal(str(value)) if isinstance(value, float) else value

            return [tuple(map(exact, row)) for row in super().run(cursor, query)]


class PercentAlways(WithExecutor):
    """Gives the driver parameters even where there are none."""

    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            return super().run(cursor, replace(query, params=query.params or {"unused": 1}))


class RepeatsTexts(WithExecutor):
    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            try:
                return super().execute(query)
            except errors.InvalidData as exc:
                raise errors.InvalidData(f"cannot send {query.params}") from exc


class CutsAtNul(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            def cut(value: Any) -> Any:
                if isinstance(value, list):
                    return [cut(each) for each in value]
                return value.partition("\0")[0] if isinstance(value, str) else value

            params = {key: cut(value) for key, value in query.params.items()}
            return super().run(cursor, replace(query, params=params))


class ExecutesTwice(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            if query.sql.startswith(("select", "insert")):
                super().run(cursor, query)
            return super().run(cursor, query)


# --- Errors -------------------------------------------------------------------------------------


class SwallowsErrors(WithExecutor):
    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            try:
                return super().execute(query)
            except errors.ConnectorException:
                return []


class LosesConstraint(WithExecutor):
    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            try:
                return super().execute(query)
            except errors.ConnectorException as exc:
                exc.constraint = None
                raise


class DriverErrors(WithExecutor):
    """Lets the driver's exceptions out."""

    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            with ext.cursor(self.connection) as cursor:
                return self.run(cursor, query)

    @contextmanager
    def session(self, *, transaction: bool = False, **options: Any) -> Iterator[SessionExecutor]:
        connection = self.take() if self.is_open else super().session().__enter__()
        try:
            connection.autocommit = not transaction
            yield self.executor(connection, of_session=True)
            connection.commit()
        finally:
            connection.close()


class NoCause(WithExecutor):
    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            try:
                return super().execute(query)
            except errors.ConnectorException as exc:
                kept = {"sqlstate": exc.sqlstate, "constraint": exc.constraint}
                error = type(exc)(str(exc), **kept)
            raise error


class TakesTheRolesEncoding(TinyConnector):
    def take(self) -> Any:
        with translated():
            return psycopg2.connect(self.dsn)


class ShowsPassword(TinyConnector):
    def take(self) -> Any:
        try:
            return psycopg2.connect(self.dsn)
        except psycopg2.Error as exc:
            raise errors.ConnectionFailed(f"cannot connect to {self.dsn}") from exc


class NeverConnectionFailed(TinyConnector):
    def take(self) -> Any:
        with translated():
            return psycopg2.connect(self.dsn)


# --- Sessions -----------------------------------------------------------------------------------


class ForgetsCommit(TinyConnector):
    @contextmanager
    def session(self, *, transaction: bool = False, **options: Any) -> Iterator[SessionExecutor]:
        try:
            with super().session(transaction=transaction, **options) as executor:
                yield executor
                if transaction:
                    raise InterruptedError
        except InterruptedError:
            pass


class CommitsAlways(TinyConnector):
    """Also when the block raises."""

    def give_back(self, connection: Any) -> None:
        with contextlib.suppress(psycopg2.Error):
            connection.commit()
        connection.close()


class IgnoresTransaction(TinyConnector):
    @contextmanager
    def session(self, *, transaction: bool = False, **options: Any) -> Iterator[SessionExecutor]:
        with super().session(transaction=False) as executor:
            yield executor


class AlwaysTransaction(TinyConnector):
    @contextmanager
    def session(self, *, transaction: bool = False, **options: Any) -> Iterator[SessionExecutor]:
        with super().session(transaction=True, **options) as executor:
            yield executor


class IgnoresReadOnly(TinyConnector):
    @contextmanager
    def session(self, *, read_only: bool = False, **options: Any) -> Iterator[SessionExecutor]:
        begin(transaction=bool(options.get("transaction")), read_only=read_only)
        with super().session(**options) as executor:
            yield executor


class StaysReadOnly(TinyConnector):
    """Makes connections, of which it keeps one, read-only for good."""

    connection: Any = None

    def run(self, connection: Any, sql: str) -> None:
        super().run(connection, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        self.connection = connection
        super().run(connection, sql)

    def take(self) -> Any:
        kept, self.connection = self.connection, None
        return super().take() if kept is None or kept.closed else kept

    def give_back(self, connection: Any) -> None:
        if connection is not self.connection or connection.info.transaction_status:
            super().give_back(connection)


class Reconnects(WithExecutor):
    """Makes a new connection in the middle of a session and repeats the statement there."""

    class broken_executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            try:
                return super().execute(query)
            except errors.ConnectionLost:
                self.connection = psycopg2.connect(self.connection.dsn)
                self.connection.autocommit = True
                return super().execute(query)


class ForgetsLosses(TinyConnector):
    """Has nothing to commit on a connection that is closed."""

    def commit(self, connection: Any) -> None:
        if not connection.closed:
            super().commit(connection)


class KeepsConnections(TinyConnector):
    """A pool of its own making, which has all that can be wrong with one, or less."""

    checks = True  # whether a connection is alive
    resets = True  # what a session has set
    ends_transactions = True

    def __init__(self, dsn: str = "", **options: Any) -> None:
        super().__init__(dsn, **options)
        self.idle: list[Any] = []
        self.pid = os.getpid()

    def close(self) -> None:
        super().close()
        while self.idle:
            self.idle.pop().close()

    def take(self) -> Any:
        if self.idle and self.pid != os.getpid():
            self.idle, self.pid = [], os.getpid()
        while self.idle:
            connection = self.idle.pop()
            if not self.checks or self.is_alive(connection):
                return connection
        return super().take()

    def is_alive(self, connection: Any) -> bool:
        try:
            with connection.cursor() as cursor:
                cursor.execute("select 1")
            connection.rollback()
        except psycopg2.Error:
            return False
        return True

    def give_back(self, connection: Any) -> None:
        if not self.is_open:
            connection.close()
        if connection.closed:
            return
        try:
            if self.ends_transactions:
                connection.rollback()
            if self.resets:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("discard all")
        except psycopg2.Error:
            return
        self.idle.append(connection)


class GivesOutDeadConnections(KeepsConnections):
    checks = False


class LeaksSettings(KeepsConnections):
    """Sets for the session what its statements need, on connections that it keeps."""

    resets = False

    def executor(self, connection: Any, *, of_session: bool = False) -> SessionExecutor:
        return SetsForTheSession.broken_executor(connection, of_session=of_session)


class LeaksPreparedStatements(KeepsConnections):
    """Prepares what it sees, on connections that it keeps."""

    resets = False

    class Executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            if "%(n)s::integer" in query.sql and self.connection.autocommit:
                cursor.execute(f"prepare kit_{query.params['n']} as select 1")
            return super().run(cursor, query)

    def executor(self, connection: Any, *, of_session: bool = False) -> SessionExecutor:
        return self.Executor(connection, of_session=of_session)


class LeaksTransactions(KeepsConnections):
    checks = False
    resets = False
    ends_transactions = False

    @contextmanager
    def session(self, *, transaction: bool = False, **options: Any) -> Iterator[SessionExecutor]:
        if not self.is_open:
            raise errors.AppNotOpen("not open")
        connection = self.take()
        if connection.info.transaction_status == ext.TRANSACTION_STATUS_IDLE:
            connection.autocommit = not transaction
        try:
            with translated():
                yield self.executor(connection, of_session=True)
                connection.commit()
        finally:
            self.give_back(connection)


class KeepsTheFirstValues(WithExecutor):
    """Takes a plan that fits all values for one that may keep the values too."""

    class broken_executor(TinyExecutor):
        first: ClassVar[dict[str, Query]] = {}

        def run(self, cursor: Any, query: Query) -> Rows:
            if query.keeps_plan:
                query = self.first.setdefault(query.sql, query)
            return super().run(cursor, query)


class NeverForgetsPlans(KeepsConnections):
    """Goes on with a statement that it has prepared, whatever the server says of it."""

    resets = False

    class Executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            if not query.sql.startswith("select * from kit_plans"):
                return super().run(cursor, query)
            cursor.execute("select 1 from pg_prepared_statements where name = 'kit_kept'")
            if not cursor.fetchall():
                cursor.execute("prepare kit_kept as select * from kit_plans where x = 1")
            cursor.execute("execute kit_kept")
            return list(cursor.fetchall())

    def executor(self, connection: Any, *, of_session: bool = False) -> SessionExecutor:
        return self.Executor(connection, of_session=of_session)


class BlocksTheLoop(TinyConnector):
    """Runs a function that blocks on the event loop that asks for it."""

    async def call_async(self, function: Callable[[], T]) -> T:
        return function()


class SwallowsErrorsOfCalls(TinyConnector):
    async def call_async(self, function: Callable[[], T]) -> T:
        with contextlib.suppress(ZeroDivisionError):
            return await super().call_async(function)
        return cast(T, None)


class IgnoresSettings(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            return super().run(cursor, replace(query, settings={}))


class SetsForTheSession(WithExecutor):
    class broken_executor(TinyExecutor):
        def run(self, cursor: Any, query: Query) -> Rows:
            changes = query.set_local().replace("SET LOCAL", "SET") if self.of_session else ""
            return super().run(cursor, replace(query, sql=changes + query.sql, settings={}))


class CannotBeSevered(WithExecutor):
    class broken_executor(TinyExecutor):
        def sever(self) -> None:
            pass


class SeversByCancelling(WithExecutor):
    """Ends the statement and not the connection."""

    class broken_executor(TinyExecutor):
        def sever(self) -> None:
            with contextlib.suppress(psycopg2.Error):
                self.connection.cancel()


class SharesOneConnection(TinyConnector):
    """Gives every session the same connection."""

    connection: Any = None

    def take(self) -> Any:
        if self.connection is None or self.connection.closed:
            self.connection = super().take()
        elif self.connection.info.transaction_status:
            self.connection.commit()
        return self.connection

    def give_back(self, connection: Any) -> None:
        with contextlib.suppress(psycopg2.Error):
            connection.rollback()


class IgnoresForks(KeepsConnections):
    def take(self) -> Any:
        self.pid = os.getpid()
        return super().take()


class OpensByItself(TinyConnector):
    """Works before it was opened, and after it was closed."""

    @contextmanager
    def session(self, *, transaction: bool = False, **options: Any) -> Iterator[SessionExecutor]:
        self.is_open = True
        with super().session(transaction=transaction, **options) as executor:
            yield executor


class ForgetsOptions(TinyConnector):
    def __init__(self, dsn: str = "", **options: Any) -> None:
        super().__init__(dsn)


class TakesAnyOptions(TinyConnector):
    def __init__(self, dsn: str = "", **options: Any) -> None:
        super().__init__(dsn)
        vars(self).update({name: value for name, value in options.items() if value is not None})


class OtherContract(TinyConnector):
    contract = 3


# --- bind ---------------------------------------------------------------------------------------


class BindCommits(TinyConnector):
    class Executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            rows = super().execute(query)
            self.connection.commit()
            return rows

    def bind(self, connection: Any) -> Executor:
        super().bind(connection)
        return self.Executor(connection)


class BindUsesRowFactory(TinyConnector):
    class Executor(TinyExecutor):
        def execute(self, query: Query, /) -> Rows:
            with translated(), self.connection.cursor() as cursor:
                return self.run(cursor, query)

        def run(self, cursor: Any, query: Query) -> Rows:
            cursor.execute(query.sql, dict(query.params) or None)
            return cursor.fetchall() if cursor.description else []

    def bind(self, connection: Any) -> Executor:
        super().bind(connection)
        return self.Executor(connection)


class BindChangesRowFactory(TinyConnector):
    def bind(self, connection: Any) -> Executor:
        executor = super().bind(connection)
        connection.cursor_factory = ext.cursor
        return executor


class BindSetsSettings(TinyConnector):
    def bind(self, connection: Any) -> Executor:
        super().bind(connection)
        return self.executor(connection, of_session=True)


class BindCloses(TinyConnector):
    bound: Any = None

    def bind(self, connection: Any) -> Executor:
        executor = super().bind(connection)
        self.bound = connection
        return executor

    def close(self) -> None:
        super().close()
        if self.bound is not None:
            self.bound.close()


class BindTakesAnything(TinyConnector):
    def bind(self, connection: Any) -> Executor:
        return self.executor(connection)
