"""The SQL statements by name, read from the ``.sql`` files of this package.

In the files, ``-- name: NAME :KIND`` heads a statement (``:one`` row, ``:many`` rows, ``:exec``
none of interest); ``-- settings: NAME, NAME`` in it says which `SETTINGS` it runs with.
``-- fragment: NAME`` heads a text that statements include with ``{>NAME}`` or
``{>NAME key=OTHER}``, where the fragment then includes OTHER as ``{>key}``, and hands it on to a
fragment of its own as ``{>NAME key=key}``. ``{schema}.`` stands for the schema of the tables, or
for nothing. ``{known}`` stands for the condition that a worker knows a job's task, which is in the
text only if it is told ``unknown_names``: most have no need of it, and it costs time in each claim.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from procrastinate.connector import Query
from procrastinate.drive import Prepare, Request, Script
from procrastinate.errors import InvalidOption
from procrastinate.model import checks
from procrastinate.model.printable import shown

_HEADER = re.compile(r"^-- (name|fragment): (\w+)(?: :(one|many|exec))?$", re.MULTILINE)
_SETTINGS = re.compile(r"^-- settings: (.+)$", re.MULTILINE)
KNOWN = " and job.task_name <> all(%(unknown_names)s::text[])"
_INCLUDE = re.compile(r"\{>(\w+)((?: \w+=\w+)*)\}")


NO_SETTINGS: Mapping[str, str] = {}
#: What a statement may need of a session that users have set up otherwise. A caller's own
#: transaction keeps its settings: what may run there has to do without.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "array_nulls": {"array_nulls": "on"},
    "isolation": {"transaction_isolation": "read committed"},
    "jit": {"jit": "off"},
}


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as it stands in its file, fragments included."""

    name: str
    kind: str
    text: str
    settings: Mapping[str, str]


class Statements:
    """Makes queries of requests, for one schema."""

    def __init__(self, schema: str | None = None) -> None:
        self.schema = schema
        self._prefix = "" if schema is None else f"{quoted(schema)}."
        self._made: dict[str, tuple[str, Mapping[str, str]]] = {}

    def __call__(self, request: Request, more: Mapping[str, str] = NO_SETTINGS) -> Query:
        """Return the query of a request, with ``more`` settings than its own."""
        name, params = request.name, request.params
        key = f"{name} known" if "unknown_names" in params else name
        text, settings = self._made.get(key) or self._make(key, request)
        if more:
            settings = {**settings, **more} if settings else more
        return Query(name, text, params, settings)

    def under(self, settings: Mapping[str, str]) -> Prepare:
        """Return the same, with these settings for each query."""
        return functools.partial(self, more=settings)

    def _make(self, key: str, request: Request) -> tuple[str, Mapping[str, str]]:
        if isinstance(request, Script):
            return self.render(request.text), NO_SETTINGS
        statement = load()[request.name]
        known = "" if key == request.name else KNOWN
        made = self.render(statement.text.replace("{known}", known)), statement.settings
        self._made[key] = made
        return made

    def render(self, text: str) -> str:
        """Return SQL with this schema in the place of its markers."""
        text = text.replace("{schema}.", self._prefix)
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
        for sort, name, kind, section in _sections(file.read_text("utf-8")):
            if name in fragments or name in statements:
                raise ValueError(f"two statements are called {name}")
            text = _without_comments(section)
            if sort == "fragment":
                fragments[name] = text
            else:
                statements[name] = Statement(name, kind, text, settings_of(section))
    return {
        name: replace(each, text=_included(each.text, fragments, {}))
        for name, each in statements.items()
    }


def _sections(file_text: str) -> list[tuple[str, str, str, str]]:
    heads = list(_HEADER.finditer(file_text))
    ends = [head.start() for head in heads[1:]] + [len(file_text)]
    return [
        (head[1], head[2], head[3] or "", file_text[head.end() : end])
        for head, end in zip(heads, ends, strict=True)
    ]


def settings_of(section: str) -> Mapping[str, str]:
    """Return the settings that a statement's section names. Raises KeyError for an unknown one."""
    names = [name.strip() for line in _SETTINGS.findall(section) for name in line.split(",")]
    settings: dict[str, str] = {}
    for name in names:
        settings |= SETTINGS[name]
    return settings


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
