"""All statements of core with a value for each parameter, for tests about every statement.

The values are read from the casts in the texts, so that a new statement needs no entry here.
"""

from __future__ import annotations

import re
from typing import Any

from procrastinate.connector import Query
from procrastinate.drive import Request
from procrastinate.model.partitions import ONE, Partitions
from procrastinate.storage.statements import Statements, load, load_distributed

MANY = Partitions(64)
_PARAMETER = re.compile(r"%\((\w+)\)s::(\w+)(\[\])?")

_BY_TYPE: dict[str, Any] = {
    "text": "x",
    "bigint": 1,
    "integer": 1,
    "jsonb": "{}",
    "timestamptz": "2030-01-01T00:00:00+00:00",
}
#: Parameters whose type does not say what they may hold. `args` is text in an array.
_BY_NAME: dict[str, Any] = {
    "statuses": ["failed"],
    "wanted": ["todo"],
    "due_ats": ["2030-01-01T00:00:00+00:00"],
    "scheduled_ats": ["2030-01-01T00:00:00+00:00"],
    "ticks": ["2030-01-01T00:00:00+00:00"],
    "errors": ["{}"],
}
#: Arrays that have few elements, however many jobs a call is about.
_SHORT = frozenset({"statuses", "queue_names", "lows", "served"})
_OF_STATEMENT: dict[str, dict[str, Any]] = {
    "defer_alike": {"all_args": "[{}]"},
    "defer_jobs": {"jobs": '[{"task_name": "x"}]'},
    "defer_ticks": {"args": ["{}"]},
}


def names(*, without: frozenset[str] = frozenset()) -> list[str]:
    """Return the names of all statements, but for some."""
    unknown = without - set(load())
    assert not unknown, f"no such statements: {sorted(unknown)}"
    return sorted(set(load()) - without)


def query(name: str, /, size: int = 1, *, partition: int = 0, **params: Any) -> Query:
    """Return a statement with values for all of its parameters: these, or some of their types.

    With another partition than 0, it has the text for a distributed database.

    Arrays have so many elements, but for those that do not stand for jobs, locks or workers.
    """
    load_all = load_distributed if partition else load
    values = values_of(load_all()[name].text, size)
    return Statements(partitions=MANY if partition else ONE).at(partition)(
        Request(name, **values | _OF_STATEMENT.get(name, {}) | params)
    )


def values_of(text: str, size: int = 1) -> dict[str, Any]:
    """Return a value for each parameter of an SQL text, by its cast."""
    values = {}
    for name, sort, array in _PARAMETER.findall(text):
        if name in ("partition", "partitions"):
            continue  # `Statements.at` says it
        value = _BY_TYPE[sort]
        if name == "ids":
            value = list(range(1, size + 1))
        elif array:
            value = _BY_NAME.get(name, [value])
            value = value if name in _SHORT else value * size
        values[name] = value
    return values


def literal(query: Query) -> dict[str, Any]:
    """Return the values as the connectors send them: a list as the text of an array."""

    def as_text(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return "{" + ",".join(_element(each) for each in value) + "}"

    return {name: as_text(value) for name, value in query.params.items()}


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
