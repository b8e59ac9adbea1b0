"""What the server keeps for a connection of our own: plans of statements, and usual settings.

For drivers that send a statement and its values in one text. A query that `keeps_plan` (rule 11 of
the contract) is sent as PREPARE once, and as EXECUTE from then on. For a claim of one job, planning
is half of the server's work; for a defer, reading and planning the call is a fifth. These are
statements in SQL and not of the protocol, because only so do they travel with the query's settings
in one message.

Rules

1. PREPARE travels in one message with the first EXECUTE. If that message fails, the
   statement may exist or not: so no name is used twice on a connection.
2. Behind a pooler, one connection may be several of the server's. When a connection is made, the
   server tells its process id, and a pooler makes one up. If `pg_backend_pid` says something else
   on a connection, its whole pool prepares nothing, and sets nothing for the session.
3. If a statement is missing or in the way all the same, the whole pool prepares nothing more.
4. A call of a function is prepared when it comes for the second time: a program that defers one job
   has no use for it. No process id is asked for before that.
5. Calls have the settings `USUAL` and no others. These are set for the session together with the
   first of them that is prepared, and then they need not travel. If that message fails, they are
   not set. What needs other settings brings all of its own, as ever.
6. What a worker sends often is prepared when it comes first. A cluster's statements name their
   partition, so there are many texts of each, and no more than `AT_MOST` are prepared on a
   connection. None makes room for another: with partitions in turn, each would be prepared just to
   be dropped.
7. If the server cannot make a plan without the values, as a coordinator for an INSERT, the whole
   pool prepares the query of that name no more. It is sent as it is from then on.
8. If a call is missing (rule 3) outside of a transaction, nothing was executed. So it is sent as it
   is, and a pooler that was not found costs no job.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from procrastinate.connector import Query, Rows
from procrastinate.errors import ConnectorException

AT_MOST = 400  # plans of a connection, six for each partition: one takes a coordinator 160 kB
_PARAMETER = re.compile(r"%\((\w+)\)s(?:::(\w+(?:\[\])?))?")
_NAME = re.compile(r"[a-z0-9_]{1,40}")  # PostgreSQL has room for 63 characters
_MISSING, _IN_THE_WAY = "26000", "42P05"  # invalid_sql_statement_name, duplicate_prepared_statement
_CHANGED = "0A000"  # the type of a result, since it was prepared; at first, what rule 7 is about
ASK = Query("ask_for_pid", "SELECT pg_catalog.pg_backend_pid()")
#: Rule 5.
USUAL: Mapping[str, str] = {"jit": "off", "transaction_isolation": "read committed"}
_SET_USUAL = "SET jit = 'off';SET default_transaction_isolation = 'read committed';"


class Permission:
    """Whether the connections of a pool may prepare statements. ``given`` is None: not known.

    ``behind_pooler`` is called once if they may not, because a pooler was found.
    """

    def __init__(self, behind_pooler: Callable[[], object] = lambda: None) -> None:
        self.given: bool | None = None
        self.refused: set[str] = set()  # names of queries (rule 7)
        self._behind_pooler = behind_pooler

    def learn(self, is_direct: bool) -> None:
        """Note whether a connection is one server process (rule 2)."""
        if self.given is None:
            self.given = is_direct
            if not is_direct:
                self._behind_pooler()


@dataclass(frozen=True, slots=True)
class _Parts:
    types: str
    body: str
    values: str


@functools.lru_cache(maxsize=1024)
def _parts(sql: str) -> _Parts | None:
    """Return what PREPARE and EXECUTE need, or None if a parameter's type is not in the text."""
    types: dict[str, str | None] = {}
    for match in _PARAMETER.finditer(sql):
        types[match[1]] = types.get(match[1]) or match[2]
    known = [each for each in types.values() if each is not None]
    if not known or len(known) != len(types):
        return None
    numbers = {name: number for number, name in enumerate(types, 1)}

    def numbered(match: re.Match[str]) -> str:
        return match[0].replace(f"%({match[1]})s", f"${numbers[match[1]]}")

    body = _PARAMETER.sub(numbered, sql).replace("%%", "%")
    return _Parts(",".join(known), body, ",".join(f"%({name})s" for name in types))


class Plans:
    """The statements that one connection has prepared, and whether it has the usual settings."""

    __slots__ = ("_made", "_names", "_prepared", "_seen", "_usual", "permission")

    def __init__(self, permission: Permission) -> None:
        self.permission = permission
        self._prepared: dict[str, str] = {}  # EXECUTE by the query's text
        self._names: dict[str, str] = {}  # of the prepared statements, by the query's text
        self._seen: set[str] = set()  # texts of calls that came once (rule 4)
        self._usual = False  # whether the settings are set (rule 5)
        self._made = 0

    def again(self, query: Query) -> str | None:
        """Return what is sent for a call that was prepared, if no settings have to go with it."""
        if self._usual and self.permission.given and query.settings == USUAL:
            return self._prepared.get(query.sql)
        return None

    def name_of(self, query: Query) -> str | None:
        """Return the name under which such a call was prepared, for a driver that executes by name.

        Its values are those of `Query.numbered`, in that order.
        """
        if self._usual and self.permission.given and query.settings == USUAL:
            return self._names.get(query.sql)
        return None

    def may_keep(self, query: Query) -> bool:
        """Return whether a query is to be prepared here, as far as that is known."""
        if not query.keeps_plan or self.permission.given is False:
            return False
        if query.name in self.permission.refused:
            return False
        if len(self._prepared) >= AT_MOST and query.sql not in self._prepared:
            return False
        if not (query.params and _NAME.fullmatch(query.name)) or _parts(query.sql) is None:
            return False
        if query.is_sent_often or query.sql in self._prepared or query.sql in self._seen:
            return True
        self._seen.add(query.sql)
        return False

    def with_settings(self, query: Query, *, alone: bool) -> tuple[str, str]:
        """Return what goes in front of a query that may be kept, and what takes its place.

        ``alone``: no transaction is open, or begins with it. After its success call `keep`.
        """
        prepare, execute = self.sent(query)
        is_usual = alone and not self._usual and query.settings == USUAL
        return f"{_SET_USUAL if is_usual else ''}{query.set_local()}{prepare}", execute

    def sent(self, query: Query) -> tuple[str, str]:
        """Return what goes in front of a query, and what takes its place."""
        known = self._prepared.get(query.sql)
        if known is not None:
            return "", known
        parts = _parts(query.sql)
        assert parts is not None
        self._made += 1
        name = f"procrastinate_{query.name}_{self._made}"  # the server shows it to administrators
        return (
            f"PREPARE {name} ({parts.types}) AS {parts.body};",
            f"EXECUTE {name}({parts.values})",
        )

    def keep(self, query: Query, execute: str, front: str = "") -> None:
        """Note that a query was prepared; ``front`` is what `with_settings` has put there."""
        self._prepared[query.sql] = execute
        self._names[query.sql] = execute.removeprefix("EXECUTE ").partition("(")[0]
        if front.startswith(_SET_USUAL):
            self._usual = True

    @contextlib.contextmanager
    def learning(self, query: Query) -> Iterator[None]:
        """Note that a query cannot be prepared, if the server says so at first (rule 7)."""
        try:
            yield
        except ConnectorException as exc:
            if exc.sqlstate == _CHANGED and query.sql not in self._prepared:
                self.permission.refused.add(query.name)
            raise

    def refused(self, error: ConnectorException) -> bool:
        """Return whether the connection is of no use any more after an error of a query."""
        if error.sqlstate in (_MISSING, _IN_THE_WAY):
            self.permission.given = False
            return True
        return error.sqlstate == _CHANGED


class _Sender(Protocol):
    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, also a failed one."""

    @property
    def server_pid(self) -> int:
        """The process id that was told when the connection was made."""


class Sender(_Sender, Protocol):
    """A connection that queries are sent on."""

    def send(self, query: Query, front: str, sql: str) -> Rows:
        """Send ``front`` and, in place of the query's text, ``sql`` with the query's values."""


class AsyncSender(_Sender, Protocol):
    """The same for coroutines."""

    async def send(self, query: Query, front: str, sql: str) -> Rows:
        """Send ``front`` and, in place of the query's text, ``sql`` with the query's values."""


def was_missing(error: ConnectorException, sender: _Sender) -> bool:
    """Return whether a call was not executed because the server did not know it (rule 8)."""
    return is_missing(error) and not sender.in_transaction


def is_missing(error: ConnectorException) -> bool:
    """Return whether the server did not know a prepared statement."""
    return error.sqlstate == _MISSING


def run(sender: Sender, plans: Plans, query: Query, begin: str) -> Rows:
    """Run a query on a connection of our own, as a prepared statement if it may be one."""
    execute = plans.again(query)
    if execute is not None:
        try:
            return sender.send(query, begin, execute)
        except ConnectorException as exc:
            if begin or not was_missing(exc, sender):
                raise
        return sender.send(query, query.set_local(), query.sql)
    if plans.may_keep(query):
        if plans.permission.given is None:
            ((pid,),) = sender.send(ASK, "", ASK.sql)
            plans.permission.learn(pid == sender.server_pid)
        if plans.permission.given:
            alone = not (begin or sender.in_transaction)
            front, execute = plans.with_settings(query, alone=alone)
            with plans.learning(query):
                rows = sender.send(query, begin + front, execute)
            plans.keep(query, execute, front)
            return rows
    return sender.send(query, begin + query.set_local(), query.sql)


async def run_async(sender: AsyncSender, plans: Plans, query: Query, begin: str) -> Rows:
    """Run a query on a connection of our own; see `run`."""
    execute = plans.again(query)
    if execute is not None:
        try:
            return await sender.send(query, begin, execute)
        except ConnectorException as exc:
            if begin or not was_missing(exc, sender):
                raise
        return await sender.send(query, query.set_local(), query.sql)
    if plans.may_keep(query):
        if plans.permission.given is None:
            ((pid,),) = await sender.send(ASK, "", ASK.sql)
            plans.permission.learn(pid == sender.server_pid)
        if plans.permission.given:
            alone = not (begin or sender.in_transaction)
            front, execute = plans.with_settings(query, alone=alone)
            with plans.learning(query):
                rows = await sender.send(query, begin + front, execute)
            plans.keep(query, execute, front)
            return rows
    return await sender.send(query, begin + query.set_local(), query.sql)
