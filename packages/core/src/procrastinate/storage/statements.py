"""The SQL statements by name, read from the ``.sql`` files of this package.

In the files, ``-- name: NAME :KIND`` heads a statement (``:one`` row, ``:many`` rows, ``:exec``
none of interest), and ``-- fragment: NAME`` heads a text that statements include with ``{>NAME}``
or ``{>NAME key=OTHER}``, where the fragment then includes OTHER as ``{>key}``, and hands it on to a
fragment of its own as ``{>NAME key=key}``. ``{schema}.`` stands for the schema of the tables, or
for nothing. ``{known}`` stands for the condition that a worker knows a job's task, which is in the
text only if it is told ``unknown_names``: most have no need of it, and it costs time in each claim.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from procrastinate.connector import Query, Value
from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.printable import shown

_HEADER = re.compile(r"^-- (name|fragment): (\w+)(?: :(one|many|exec))?$", re.MULTILINE)
KNOWN = " and job.task_name <> all(%(unknown_names)s::text[])"
_INCLUDE = re.compile(r"\{>(\w+)((?: \w+=\w+)*)\}")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as it stands in its file, fragments included."""

    name: str
    kind: str
    text: str


class Statements:
    """The statements for one schema: ``statements("get_job", id=7)`` returns the `Query`."""

    def __init__(self, schema: str | None = None) -> None:
        self.schema = schema
        self._prefix = "" if schema is None else f"{quoted(schema)}."
        self._texts: dict[str, str] = {}

    def __call__(self, name: str, /, **params: Value) -> Query:
        knows_all = "unknown_names" not in params
        key = name if knows_all else f"{name} known"
        text = self._texts.get(key)
        if text is None:
            text = load()[name].text.replace("{known}", "" if knows_all else KNOWN)
            text = self._texts[key] = self.render(text)
        return Query(name, text, params)

    def render(self, text: str) -> str:
        """Return SQL with this schema in the place of its markers."""
        text = text.replace("{known}", "").replace("{schema}.", self._prefix)
        return text.replace("{schema_name}", self._prefix.rstrip("."))


def quoted(schema: str) -> str:
    """Return a schema's name as an SQL identifier. Raises `InvalidOption` if it cannot be one."""
    if len(checks.check_name("schema", schema).encode()) > 63:
        raise InvalidOption(f"schema must be a name of 1 to 63 bytes, not {shown(schema)}")
    if set(schema) & set("\0'\"%\\{}"):
        raise InvalidOption(f"schema must not contain quotes, percent signs or braces: {schema!r}")
    return f'"{schema}"'


@functools.cache
def load() -> Mapping[str, Statement]:
    """Return all statements by name."""
    from pathlib import Path  # not at the top: it takes a twentieth of the package's import

    folder = Path(__file__).parent / "sql"
    fragments: dict[str, str] = {}
    statements: dict[str, Statement] = {}
    for file in sorted(folder.iterdir()):
        for sort, name, kind, text in _sections(file.read_text("utf-8")):
            if name in fragments or name in statements:
                raise ValueError(f"two statements are called {name}")
            if sort == "fragment":
                fragments[name] = text
            else:
                statements[name] = Statement(name, kind, text)
    return {
        name: Statement(name, each.kind, _included(each.text, fragments, {}))
        for name, each in statements.items()
    }


def _sections(file_text: str) -> list[tuple[str, str, str, str]]:
    heads = list(_HEADER.finditer(file_text))
    ends = [head.start() for head in heads[1:]] + [len(file_text)]
    return [
        (head[1], head[2], head[3] or "", _without_comments(file_text[head.end() : end]))
        for head, end in zip(heads, ends, strict=True)
    ]


def _without_comments(text: str) -> str:
    """Drop comment lines and blank ones: they need not travel with every query."""
    lines = (line.rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("--"))


def _included(text: str, fragments: Mapping[str, str], names: Mapping[str, str]) -> str:
    def include(match: re.Match[str]) -> str:
        given = dict(pair.split("=") for pair in match[2].split())
        inner = {key: names.get(value, value) for key, value in given.items()}
        name = names.get(match[1], match[1])
        return _included(fragments[name], fragments, inner)

    return _INCLUDE.sub(include, text)
