"""What the server says of each part of the tables, and which parts differ from that.

``definitions.txt`` holds the server's own text of each type, default, index and constraint, without
what depends on its settings. A test compares the file with tables that ``schema.sql`` has made.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from procrastinate.model.partitions import ONE, Partitions
from procrastinate.storage.schema_parts import SHOWN, in_quotes, is_vital, parts

_MANY = "many: "
_SCHEMA = re.compile(r'(?:"(?:[^"]|"")*"|\w+)\.(?="?procrastinate_)')
#: The text of a time depends on the time zone and the DateStyle of the session.
_TIME = re.compile(r"'[^']*'::timestamp with time zone")
_OPTIONS = re.compile(r" WITH \([^)]*\)")
#: Versions of the server may differ in these, and ours can be told apart without them.
_BETWEEN = re.compile(r"[()\s]+")
#: With many partitions our statements name that of each job. Only rows that are inserted by hand
#: take the default, and who does that may have chosen one.
_OWNERS_OF_MANY = "default of procrastinate_jobs.partition"
_REQUIRED = "required column "
_COLUMN = "column "
_PLAIN = "plain table "
_NO_RULE = "own statements of "
_NO_CHILD = "own rows of "
_TRAITS = (_PLAIN, _NO_RULE, _NO_CHILD)
_RIGHT = "right to check jobs"
_CALLED = "procrastinate_job_fits"


def plain(definition: str) -> str:
    """Return a definition without schemas, quotes, parentheses and an index's options."""
    text = _TIME.sub("time", _SCHEMA.sub("", _OPTIONS.sub("", definition)))
    return _BETWEEN.sub(" ", text.replace('"', "").replace("E'", "'")).strip()


@functools.cache
def definitions(partitions: Partitions = ONE) -> Mapping[str, str]:
    """Return the plain definition of each part that has one."""
    text = (Path(__file__).parent / "definitions.txt").read_text("utf-8")
    lines = text.replace("{boundary}", str(partitions.boundary_id)).splitlines()
    of_one = dict(line.split(" = ", 1) for line in lines if not line.startswith(_MANY))
    if not partitions.are_many:
        return of_one
    many = (line.removeprefix(_MANY) for line in lines if line.startswith(_MANY))
    del of_one[_OWNERS_OF_MANY]
    return {**of_one, **dict(line.split(" = ", 1) for line in many)}


@functools.cache
def traits() -> tuple[str, ...]:
    """Return what the tables have besides their parts; the statement schema_parts names it too."""
    columns = (name for name in definitions() if name.startswith(_COLUMN))
    tables = dict.fromkeys(name.removeprefix(_COLUMN).partition(".")[0] for name in columns)
    return (*(f"{trait}{table}" for table in tables for trait in _TRAITS), _RIGHT)


def changed(had: Mapping[str, str], partitions: Partitions = ONE) -> dict[str, str]:
    """Return the parts that differ from ours, and what each is instead.

    Among them are traits that are missing, and a required column of others, without which no row
    can be inserted. If types differ, it returns only these: what is made of the columns differs as
    well.
    """
    ours = definitions(partitions)
    found = {
        name: plain(text)
        for name, text in had.items()
        if name in ours and ours[name] != plain(text)
    }
    types = {name: text for name, text in found.items() if name.startswith(_COLUMN)}
    columns = [name.removeprefix(_COLUMN) for name in had if name.startswith(_COLUMN)]
    required = {
        f"{_REQUIRED}{column}": ""
        for column in columns
        if f"{_COLUMN}{column}" not in ours
        and f"not null of {column}" in had
        and f"default of {column}" not in had
    }
    lost = {trait: "" for trait in traits() if trait not in had}
    return {**(types or found), **required, **lost}


def is_vital_change(part: str) -> bool:
    """Whether statements fail because a part is another thing, or jobs are done twice."""
    if part.startswith(("default of ", *_TRAITS)):
        return False
    return is_vital(part)


def told(differing: Mapping[str, str], home: str, partitions: Partitions = ONE) -> str:
    """Return what to tell about parts that differ, and what to do about them."""
    place = f"{in_quotes(home)}."
    said = [_what_it_is(part, found, partitions) for part, found in differing.items()]
    run = [
        f"`{statement.replace('{schema}.', place)}`"
        for part in differing
        for statement in _repairs(part, partitions)
    ]
    todo = []
    if len(run) > SHOWN:
        todo.append("look up each in the script that `procrastinate schema --read` prints")
    elif run:
        todo.append(f"run {', '.join(run)}")
    if any(part.startswith((_COLUMN, _PLAIN)) for part in differing):
        todo.append("restore the tables from a backup, or undo that change by hand")
    if any(part.startswith(_NO_RULE) for part in differing):
        todo.append("drop the rules")
    if any(part.startswith(_NO_CHILD) for part in differing):
        todo.append("run `alter table CHILD no inherit` of that table for each of them")
    return f"{'; '.join(said)}: {', and '.join(todo)}"


def _what_it_is(part: str, found: str, partitions: Partitions) -> str:
    name = part.rpartition(" ")[2]
    if part.startswith(_REQUIRED):
        return (
            f"the column {name}, which procrastinate does not know, is not null and has no default,"
            " so inserts fail"
        )
    if part.startswith(_PLAIN):
        return f"{name} is not a plain table"
    if part.startswith(_NO_RULE):
        return f"{name} has a rule that replaces statements"
    if part.startswith(_NO_CHILD):
        return f"{name} has child tables, whose rows are taken for its own"
    if part == _RIGHT:
        return f"this role writes jobs, and has no EXECUTE on the function {_CALLED}"
    return f"the {part} is {found} instead of {definitions(partitions)[part]}"


def _repairs(part: str, partitions: Partitions) -> Iterator[str]:
    """Yield the statements that make a part anew, if that is safe, with markers for the schema."""
    name = part.rpartition(" ")[2]
    table, _, column = name.partition(".")
    if part == _RIGHT:
        yield f"grant execute on function {{schema}}.{_CALLED} to public"
    elif part.startswith(_REQUIRED):
        yield f'alter table {{schema}}.{table} alter column "{column}" drop not null'
    elif part.startswith("default of "):
        yield parts(partitions)[part]
    elif part.startswith("constraint "):
        alter, _, added = parts(partitions)[part].partition(" add ")
        if partitions.are_many:  # a cluster takes no other change beside that one
            yield f"{alter} drop constraint {name}"
            yield f"{alter} add {added}"
        else:
            yield f"{alter} drop constraint {name}, add {added}"
    elif "index " in part:
        yield f"drop index concurrently {{schema}}.{name}"
        yield parts(partitions)[part]
