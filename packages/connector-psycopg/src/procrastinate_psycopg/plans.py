"""Plans that the server keeps for connections of our own pool.

A query that has one plan for all values (rule 11 of the contract) is sent as PREPARE once, and as
EXECUTE from then on. For a claim of one job, planning is half of the server's work. These are
statements in SQL and not of the protocol, because only so do they travel with the query's settings
in one message (`literals`).

Rules

1. PREPARE travels in one message with the first EXECUTE. If that message fails, the
   statement may exist or not: so no name is used twice on a connection.
2. Behind a pooler, one connection may be several of the server's. When a connection is made, the
   server tells its process id, and a pooler makes one up. If `pg_backend_pid` says something else
   on a connection, its whole pool prepares nothing.
3. If a statement is missing or in the way all the same, the whole pool prepares nothing more.
"""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass

from procrastinate.connector import Query
from procrastinate.errors import ConnectorException

logger = logging.getLogger("procrastinate.psycopg")

_PARAMETER = re.compile(r"%\((\w+)\)s(?:::(\w+(?:\[\])?))?")
_NAME = re.compile(r"[a-z0-9_]{1,40}")  # PostgreSQL has room for 63 characters
_MISSING, _IN_THE_WAY = "26000", "42P05"  # invalid_sql_statement_name, duplicate_prepared_statement
_CHANGED = "0A000"  # the type of a result, since it was prepared; in other cases something else
ASK = Query("ask_for_pid", "SELECT pg_catalog.pg_backend_pid()")


class Permission:
    """Whether the connections of a pool may prepare statements. ``given`` is None: not known."""

    def __init__(self) -> None:
        self.given: bool | None = None

    def learn(self, is_direct: bool) -> None:
        """Note whether a connection is one server process (rule 2)."""
        if self.given is None:
            self.given = is_direct
            if not is_direct:
                logger.info(
                    "there is a pooler in front of PostgreSQL: no prepared statements, and LISTEN"
                    " only with listen_conninfo="
                )


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
    if not known or len(known) != len(types):
        return None
    numbers = {name: number for number, name in enumerate(types, 1)}

    def numbered(match: re.Match[str]) -> str:
        return match[0].replace(f"%({match[1]})s", f"${numbers[match[1]]}")

    body = _PARAMETER.sub(numbered, sql).replace("%%", "%")
    return _Parts(",".join(known), body, ",".join(f"%({name})s" for name in types))


class Plans:
    """The statements that one connection has prepared."""

    __slots__ = ("_made", "_prepared", "permission")

    def __init__(self, permission: Permission) -> None:
        self.permission = permission
        self._prepared: dict[str, str] = {}  # EXECUTE by the query's text
        self._made = 0

    def may_keep(self, query: Query) -> bool:
        """Return whether a query is to be prepared here, as far as that is known."""
        if not query.keeps_plan or self.permission.given is False:
            return False
        return bool(query.params and _NAME.fullmatch(query.name)) and _parts(query.sql) is not None

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

    def keep(self, query: Query, execute: str) -> None:
        """Note that a query was prepared."""
        self._prepared[query.sql] = execute

    def refused(self, error: ConnectorException) -> bool:
        """Return whether the connection is of no use any more after an error of a query."""
        if error.sqlstate in (_MISSING, _IN_THE_WAY):
            self.permission.given = False
            return True
        return error.sqlstate == _CHANGED
