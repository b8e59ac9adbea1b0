"""What goes into a statement: parameters in the form that psycopg2 takes.

A list travels as the text of an array (``{1,2,NULL}``), to which the placeholder's cast gives its
type. So empty lists and lists with None need no care, and the server reads a constant instead of
parsing an expression for each element (1,000 bigints: 0.3 ms instead of 1.6 ms).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from procrastinate.connector import Query

_ARRAYS = (list, tuple)
_CHANGED = (int, list, tuple)


def adapted(query: Query) -> tuple[str, Mapping[str, Any] | None]:
    """Return the SQL and the parameters in the form that psycopg2 takes.

    Without parameters the second is None, which keeps ``%`` literal.
    """
    params = query.params
    if not params:
        return query.sql, None
    for value in params.values():
        if value is None or type(value) is str:  # as most are
            continue
        if isinstance(value, _CHANGED) and (not isinstance(value, int) or value < 0):
            return query.sql, {name: _adapted(value) for name, value in params.items()}
    return query.sql, params


def _adapted(value: Any) -> Any:
    if isinstance(value, _ARRAYS):
        return _array_text(value)
    if isinstance(value, int) and value < 0:
        # The cast binds closer than the minus: -32768::smallint would be out of range.
        return str(int(value))
    return value


def _array_text(values: Sequence[Any]) -> str:
    """Return the text of an array.

    Those of one kind, which all but a few are, without a call for each element: the arrays of a
    worker's batch took a sixth of its time.
    """
    kinds = set(map(type, values))
    if kinds == {int}:
        return "{" + ",".join(map(str, values)) + "}"
    if kinds == {type(None)}:
        return "{" + ",".join(["NULL"] * len(values)) + "}"
    if kinds == {str}:
        joined = _SEPARATOR.join(values)
        if joined.count(_SEPARATOR) == len(values) - 1:
            return '{"' + _escaped(joined).replace(_SEPARATOR, '","') + '"}'
    return "{" + ",".join(map(_element_text, values)) + "}"


#: Stands in no text that PostgreSQL takes.
_SEPARATOR = "\0"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _element_text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return f'"{_escaped(value)}"'
    if isinstance(value, datetime):
        return f'"{value.isoformat()}"'
    if isinstance(value, list | tuple):
        return _array_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    return str(value)
