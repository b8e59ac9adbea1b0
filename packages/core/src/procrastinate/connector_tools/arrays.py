"""Lists as the text of an array, for drivers that send values as text.

The text (``{1,2,NULL}``) gets its type from the placeholder's cast. So empty lists and lists with
None need no care, and the server reads a constant instead of parsing an expression for each element
(1,000 bigints: 0.3 ms instead of 1.6 ms).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any


def array_text(values: Sequence[Any]) -> str:
    """Return the text of an array of numbers, texts, moments or None, or of arrays of them.

    Those of one kind, which all but a few are, without a call for each element: the arrays of a
    worker's batch took a sixth of its time.
    """
    kinds = set(map(type, values))
    if kinds == {int}:
        return "{" + ",".join(map(str, values)) + "}"
    if kinds == {type(None)}:
        return "{" + ",".join(["NULL"] * len(values)) + "}"
    if kinds == {str}:
        escaped = _escaped(_SEPARATOR.join(values))
        elements = escaped.replace(_SEPARATOR, _QUOTED_COMMA)
        grown = len(elements) - len(escaped)
        if grown == (len(values) - 1) * (len(_QUOTED_COMMA) - 1):  # no text has the separator
            return '{"' + elements + '"}'
    return "{" + ",".join(map(_element_text, values)) + "}"


#: Stands in no text that PostgreSQL takes.
_SEPARATOR = "\0"
_QUOTED_COMMA = '","'


def _escaped(text: str) -> str:
    if "\\" in text:  # to find out costs nothing, to replace none eight instructions a character
        text = text.replace("\\", "\\\\")
    return text.replace('"', '\\"') if '"' in text else text


def _element_text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return f'"{_escaped(value)}"'
    if isinstance(value, datetime):
        return f'"{value.isoformat()}"'
    if isinstance(value, list | tuple):
        return array_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    return str(value)
