"""Flows on the connection of a caller, who has a transaction of their own: or should have.

Rules

1. A refusal comes before anything is changed, and leaves the transaction usable. There is one
   exception: if the schema has no such tables at all, or the transaction is read-only, the server
   refuses the statement that defers a job, and the transaction has failed. The error says so. (A
   look before each would cost a round trip. An app that has seen no tables looks once, on the first
   connection.)
2. What takes several statements needs a transaction, as it could otherwise be done by half.
3. The connection has to lead to the tables that the app has seen, if it has seen any: another
   database, or another schema of the same name, is a mistake. To find that out takes no round trip
   of its own for jobs that are deferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from procrastinate.connector import Rows
from procrastinate.drive import Flow, Request
from procrastinate.errors import ConnectorException, InvalidOption, SchemaError, SchemaNotApplied
from procrastinate.storage.savepoints import NO_TRANSACTION

T = TypeVar("T")

#: Statements that do nothing and return no row unless the tables are those ``seen``.
_GUARDED = frozenset(
    {"defer_job", "defer_job_in", "defer_job_with_key", "defer_alike", "defer_jobs"}
)
#: An earlier statement of the transaction has failed: in_failed_sql_transaction.
_FAILED = "25P02"
#: It is read-only: read_only_sql_transaction.
_READ_ONLY = "25006"
#: There is no table of this name, or no schema of its name.
_NO_TABLES = frozenset({"42P01", "3F000"})
_NOWHERE = (
    "the connection given as connection= leads to no tables of procrastinate: run `procrastinate"
    " schema --apply` on that database, or look at its search_path. Nothing was done"
)
_ELSEWHERE = (
    "the connection given as connection= leads to other tables than the app's own connector: to"
    " another database, or to another schema by its search_path. Nothing was done"
)
_IT_HAS_FAILED = (
    ". There are no tables of procrastinate at all, so the server has refused the statement, and"
    " your transaction has failed: roll it back, or to a savepoint"
)

_IF_THERE_IS_ONE = (
    ". Nothing was done. If you have begun a transaction on the connection given as connection=, it"
    " has failed: roll it back, or to a savepoint"
)


class LookAgain(Request):
    """Not for the caller's connection: `get_place` of the app's own, as the only value of a row."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("get_place")


@dataclass(frozen=True, slots=True)
class Place:
    """What tells tables from others: their number, the database, the time of the server's start."""

    table: int  # 0 if there are none
    database: str
    start: datetime


def get_place() -> Flow[Place | None]:
    """Return where the tables are; None if a cluster has them in several places."""
    return _place(*(yield Request("get_place"))[0])


def _place(table: int | None, database: str, start: datetime) -> Place | None:
    return None if table is None else Place(table, database, start)


def for_caller(
    flow: Flow[T], seen: Place | None, *, several: bool, is_first: bool = False
) -> Flow[T]:
    """Return a flow as it runs on a caller's connection.

    ``seen`` is the `get_place` of the app's own tables, if it is known; ``several`` says whether
    the flow takes several statements, and ``is_first`` whether the app has run none so far. Raises
    `InvalidOption` for a connection that the flow cannot run on, and `SchemaNotApplied` if the
    first one leads to no tables.
    """
    tables = _Tables(seen, is_first=is_first)
    try:
        if several:
            yield from _in_transaction()
        request = next(flow)
        while True:
            try:
                rows = yield from tables.checked(request)
            except ConnectorException as exc:
                request = flow.throw(_clear(exc))
            else:
                request = flow.send(rows)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


class _Tables:
    """The tables that a connection leads to, until they are known to be the right ones."""

    def __init__(self, seen: Place | None, *, is_first: bool) -> None:
        self._seen = seen
        self._is_first = is_first and seen is None

    def checked(self, request: Request) -> Flow[Rows]:
        """Send a request, once the tables are the right ones."""
        while self._seen is not None:
            if request.name in _GUARDED:
                rows = yield from self._guarded(request, self._seen)
                if rows:
                    self._seen = None
                    return rows
            elif (yield from get_place()) == self._seen:
                self._seen = None
                return (yield request)
            yield from self._look_again()
        if self._is_first:
            self._is_first = False
            place = yield from get_place()
            if place is not None and not place.table:
                raise SchemaNotApplied(_NOWHERE)
        return (yield request)

    def _guarded(self, request: Request, seen: Place) -> Flow[Rows]:
        try:
            return (yield _on_condition(request, seen))
        except ConnectorException as exc:
            if exc.sqlstate not in _NO_TABLES or (yield from _own_place()) is None:
                raise
            raise InvalidOption(_ELSEWHERE + _IT_HAS_FAILED) from exc

    def _look_again(self) -> Flow[None]:
        """The server may have been restarted since, or the tables made anew."""
        place = yield from _own_place()
        if place == self._seen:
            raise InvalidOption(_ELSEWHERE)
        self._seen = place


def _own_place() -> Flow[Place | None]:
    ((place,),) = yield LookAgain()
    own: Place | None = place
    return own


def _on_condition(request: Request, seen: Place) -> Request:
    return Request(
        request.name,
        seen_table=seen.table,
        seen_database=seen.database,
        seen_start=seen.start,
        **request.params,
    )


def _in_transaction() -> Flow[None]:
    try:
        yield Request("set_savepoint")
        yield Request("drop_savepoint")
    except ConnectorException as exc:
        if exc.sqlstate != NO_TRANSACTION:
            raise _clear(exc) from exc.__cause__
        raise InvalidOption(
            "the connection given as connection= is in autocommit mode, and this call takes several"
            " statements: begin a transaction around it (psycopg2: connection.autocommit = False;"
            " psycopg and asyncpg: `with connection.transaction():`, with async where it is"
            " asynchronous; SQLAlchemy: connection.begin() without AUTOCOMMIT; aiopg: BEGIN)"
        ) from exc


def _clear(exc: ConnectorException) -> ConnectorException:
    """Return an error that says what became of the caller's transaction, and what to do."""
    kind = type(exc)
    if exc.sqlstate == _FAILED:
        words = (
            "the transaction of the connection given as connection= has failed before: roll it"
            " back, or to a savepoint, and try again. Nothing was done"
        )
    elif exc.sqlstate == _READ_ONLY:
        kind = ConnectorException  # no connection was lost: this one, or its owner, is read-only
        words = (
            f"the connection given as connection= may not write: {exc}. Nothing was done. Roll the"
            " transaction back, and begin one that may write"
        )
    elif isinstance(exc, SchemaError) and exc.sqlstate is not None:
        words = f"{exc}{_IF_THERE_IS_ONE}"
    else:
        return exc
    clear = kind(words, sqlstate=exc.sqlstate, constraint=exc.constraint)
    clear.__cause__ = exc.__cause__
    return clear
