"""Queries as asyncpg takes them, and rows as the contract gives them.

Rules

1. JSON goes as text (``$1::text::jsonb``), because the owner of a pool may have set a codec for it,
   which would encode it twice.
2. Several statements in one text go by the simple protocol, which has no parameters and returns no
   rows. So the text is looked at, past strings and comments, for a second statement.
3. asyncpg reads numeric as Decimal, and the contract wants float.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from procrastinate.connector import Query, Rows
from procrastinate.connector_tools.asyncpg_values import with_json_as_text

_TOKEN = re.compile(
    r"""
    [eE]'(?:[^'\\]|''|\\.)*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$\$ .*? \$\$
    | \$(?P<tag>[A-Za-z_]\w*)\$ .*? \$(?P=tag)\$
    | --[^\n]*
    | /\* .*? \*/
    | (?P<end>;)
    | (?P<word>\S)
    """,
    re.VERBOSE | re.DOTALL,
)


def prepared(query: Query) -> tuple[str, list[Any]]:
    """Return a query's text with ``$1, $2, ...``, and the values in that order."""
    sql, values = query.numbered()
    return with_json_as_text(sql) if values else sql, values


def is_script(query: Query) -> bool:
    """Return whether a query is several statements."""
    return not query.params and _is_script(query.sql)


@functools.lru_cache(maxsize=256)
def _is_script(sql: str) -> bool:
    if ";" not in sql:
        return False
    ended = False
    for match in _TOKEN.finditer(sql):
        if match["end"]:
            ended = True
        elif ended and not match[0].startswith(("--", "/*")):
            return True
    return False


def rows_of(records: Sequence[Any]) -> Rows:
    """Return asyncpg's records as tuples of plain values."""
    rows = [tuple(record) for record in records]
    kinds = {type(value) for row in rows for value in row}
    if Decimal in kinds or list in kinds:
        return [tuple(map(_plain, row)) for row in rows]
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
