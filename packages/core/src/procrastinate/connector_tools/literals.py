"""Values as SQL, for drivers that send a statement and its values in one text."""

from __future__ import annotations

from procrastinate.connector import Query, Value
from procrastinate.connector_tools.arrays import array_text


def with_literals(query: Query) -> str:
    """Return a query's SQL with its values in the place of the placeholders.

    Raises ValueError for a text with a NUL in it.
    """
    if not query.params:
        return query.sql
    return query.sql % {name: literal(value) for name, value in query.params.items()}


def literal(value: Value) -> str:
    """Return a value as SQL, to which the placeholder's cast gives its type.

    It means the same whatever ``standard_conforming_strings`` and ``backslash_quote`` are. Raises
    ValueError for a text with a NUL in it.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        text = "\\x" + value.hex()
    else:
        text = array_text(value) if isinstance(value, list | tuple) else str(value)
    if "\0" in text:
        raise ValueError("a text has a NUL in it")
    # A space, because E might otherwise belong to the word before it.
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
