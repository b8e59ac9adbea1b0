"""Plans that the server keeps for connections of our own pool.

psycopg2 sends values within the text, so the server plans each statement anew. For a claim of one
job that is half of its work. A query that has one plan for all values (rule 11 of the contract) is
therefore sent as PREPARE once, and as EXECUTE from then on.

Rules

1. PREPARE travels in one message with the first EXECUTE. If that message fails, the
   statement may exist or not: so no name is used twice on a connection.
2. Behind a pooler, one connection may be several of the server's. When a connection is made, the
   server tells its process id, and a pooler makes one up. A connection on which `pg_backend_pid`
   says something else prepares nothing.
3. If a statement is missing or in the way all the same, the whole pool prepares nothing more.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from procrastinate.connector import Query
from procrastinate.errors import ConnectorException

_PARAMETER = re.compile(r"%\((\w+)\)s(?:::(\w+(?:\[\])?))?")
_NAME = re.compile(r"[a-z0-9_]{1,40}")  # PostgreSQL has room for 63 characters
_MISSING, _IN_THE_WAY = "26000", "42P05"  # invalid_sql_statement_name, duplicate_prepared_statement
_CHANGED = "0A000"  # the type of a result, since it was prepared; in other cases something else
ASK = "SELECT pg_catalog.pg_backend_pid()"


@dataclass(slots=True)
class Permission:
    """Whether the connections of a pool may prepare statements."""

    given: bool = True


@dataclass(frozen=True, slots=True)
class _Parts:
    types: str
    body: str
    values: str


@functools.lru_cache(maxsize=128)
def _parts(sql: str) -> _Parts | None:
    """Return what PREPARE and EXECUTE need, or None if a parameter's type is not in the text."""
    types: dict[str, str | None] = {}
    for match in _PARAMETER.finditer(sql):
        types[match[1]] = types.get(match[1]) or match[2]
    known = [each for each in types.values() if each is not None]
    if len(known) != len(types):
        return None
    numbers = {name: number for number, name in enumerate(types, 1)}

    def numbered(match: re.Match[str]) -> str:
        return match[0].replace(f"%({match[1]})s", f"${numbers[match[1]]}")

    return _Parts(
        ",".join(known), _PARAMETER.sub(numbered, sql), ",".join(f"%({name})s" for name in types)
    )


class Plans:
    """The statements that one connection has prepared."""

    __slots__ = ("_made", "_permission", "_prepared", "is_direct")

    def __init__(self, permission: Permission) -> None:
        self._permission = permission
        self._prepared: dict[str, str] = {}  # EXECUTE by the query's text
        self._made = 0
        self.is_direct: bool | None = None  # whether it is one connection of the server's (rule 2)

    def may_keep(self, query: Query) -> bool:
        """Whether a query is to be prepared here, as far as that is known."""
        if not (query.keeps_plan and self._permission.given) or self.is_direct is False:
            return False
        if not (query.params and _NAME.fullmatch(query.name)):
            return False
        return _parts(query.sql) is not None

    def sent(self, query: Query) -> tuple[str, str]:
        """Return what goes in front of a query, and what takes its place."""
        known = self._prepared.get(query.sql)
        if known is not None:
            return "", known
        parts = _parts(query.sql)
        assert parts is not None
        self._made += 1
        name = f"procrastinate_{query.name}_{self._made}"  # the server shows it to administrators
        types = f" ({parts.types})" if parts.types else ""
        return f"PREPARE {name}{types} AS {parts.body};", f"EXECUTE {name}({parts.values})"

    def keep(self, query: Query, execute: str) -> None:
        """Note that a query was prepared."""
        self._prepared[query.sql] = execute

    def refused(self, error: ConnectorException) -> bool:
        """Return whether the connection is of no use any more after an error of a query."""
        if error.sqlstate in (_MISSING, _IN_THE_WAY):
            self._permission.given = False
            return True
        return error.sqlstate == _CHANGED
