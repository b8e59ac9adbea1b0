"""What goes into a statement: parameters in the form that psycopg2 takes.

libpq looks at each byte of a text that it quotes, which took longer than all else that becomes of a
large array. So a list is quoted here if it has nothing but ASCII, and no backslash. This means the
same in each encoding of a connection, and under either value of ``standard_conforming_strings``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from psycopg2.extensions import AsIs

from procrastinate.connector import Query
from procrastinate.connector_tools.arrays import array_text

_ARRAYS = (list, tuple)
_CHANGED = (int, list, tuple)
_FLAT = frozenset({type(None), bool, int, float, str, datetime})


def adapted(query: Query) -> tuple[str, Mapping[str, Any] | None]:
    """Return the SQL and the parameters in the form that psycopg2 takes.

    Without parameters the second is None, which keeps ``%`` literal.
    """
    params = query.params
    if not params:
        return query.sql, None
    values: Iterable[Any] = params.values()
    if _FLAT.issuperset(map(type, values)):
        values = filter(None, values)  # what is falsy among these types needs no change
    for value in values:
        if value is None or type(value) is str:  # as most are
            continue
        if isinstance(value, _CHANGED) and (not isinstance(value, int) or value < 0):
            return query.sql, {name: _adapted(value) for name, value in params.items()}
    return query.sql, params


def _adapted(value: Any) -> Any:
    if isinstance(value, _ARRAYS):
        return _quoted(array_text(value))
    if type(value) is str:
        return _quoted(value)
    if isinstance(value, int) and value < 0:
        # The cast binds closer than the minus: -32768::smallint would be out of range.
        return str(int(value))
    return value


def _quoted(text: str) -> Any:
    """Return a text as a literal that is sent as it is, or else for libpq to quote."""
    if not text.isascii() or "\\" in text or "\0" in text:
        return text
    if "'" in text:  # to find out costs nothing, to replace none eight instructions a character
        text = text.replace("'", "''")
    return AsIs(f"'{text}'")
