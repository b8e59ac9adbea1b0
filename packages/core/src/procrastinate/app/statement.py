"""A job as one SQL statement, for any other driver to execute."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from procrastinate.connector import Query
from procrastinate.errors import InvalidOption

#: What the parameters of a job are.
Parameter = str | int | datetime | None

_CAST = re.compile(r"%\((\w+)\)s((?:::\w+)+)")
# Told that it is jsonb, a driver may encode it once more: the owner of the connection may have set
# that up.
_JSONB = re.compile(r"(%\(\w+\)s)::jsonb\b")


class Statement:
    """The statement that defers one job, checked and complete, in the styles of PEP 249.

    Execute it with any driver, in any transaction. It returns one row with one column: the job's
    id, or NULL where `AlreadyEnqueued` would be raised. Every parameter has a cast, so that it is
    the same for drivers that send types and for those that do not. Times are aware; the delay of
    ``schedule_in`` is in microseconds, and begins when the statement is executed.
    """

    def __init__(self, query: Query) -> None:
        self._sql = _JSONB.sub(r"\1::text::jsonb", query.sql)
        self._params: Mapping[str, Parameter] = query.params  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Statement {self._params['task_name']!r}>"

    @property
    def pyformat(self) -> tuple[str, dict[str, Parameter]]:
        """The SQL with ``%(name)s``, and its parameters: psycopg2, psycopg, aiopg."""
        return self._sql, dict(self._params)

    @property
    def named(self) -> tuple[str, dict[str, Parameter]]:
        """The SQL with ``:name``, and its parameters: SQLAlchemy's ``text()``.

        Raises `InvalidOption` if the name of the schema has a colon, which begins a parameter.
        """
        if ":" in _CAST.sub("", self._sql).replace("::", ""):
            raise InvalidOption(
                "the name of the schema has a colon, which `named` takes for a parameter: use"
                " another style"
            )
        # Not :name::text, of which text() would take :nam for the parameter.
        return _CAST.sub(_named, self._sql), dict(self._params)

    @property
    def numeric_dollar(self) -> tuple[str, list[Parameter]]:
        """The SQL with ``$1, $2, ...``, and its parameters in that order: asyncpg."""
        sql, values = Query("statement", self._sql, self._params).numbered()
        return sql, values  # type: ignore[return-value]


def _named(match: re.Match[str]) -> str:
    sql = f":{match[1]}"
    for type_name in match[2].split("::")[1:]:
        sql = f"cast({sql} as {type_name})"
    return sql
