"""What the tables are made of, and the SQL that makes a part of them that a database lacks.

All of it is read from ``schema.sql``. The statement schema_parts says what a database has, by the
same names. What PostgreSQL sorts under something else is a part as well: a table that is unlogged
lacks its logging, and one that row level security hides lacks its visible rows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from procrastinate.model.partitions import MANY, ONE, VALUES, Partitions
from procrastinate.storage.defer import PARTITION_CHECK, QUEUEING_LOCK_KEY

_TABLE = re.compile(
    r"^create (unlogged )?table \{schema\}\.(\w+) \((.*?)^\)", re.MULTILINE | re.DOTALL
)
_COLUMN = re.compile(r"^    (?!constraint\b)([a-z]\w*) (.*)$", re.MULTILINE)
_CONSTRAINT = re.compile(
    r"^    (constraint (\w+)\s.*?)(?=,?\n    (?:[a-z]|--)|\n\Z)", re.MULTILINE | re.DOTALL
)
_INDEX = re.compile(r"^create ((?:unique )?index) (\w+)(.*?);$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r",?(\s+--.*)?$", re.MULTILINE)
_DEFAULT = re.compile(r" default (.+)$")
_NOT_NULL = "not null of "
_LOGGING = "logging of "
_VISIBLE = "visible rows of "
SHOWN = 3  # statements that a message has room for
IDS = "procrastinate_jobs_id_seq"
WORKER_IDS = "procrastinate_workers_id_seq"
#: What the sequence is called in a database with many partitions, where an id says its partition:
#: what would draw an id that does not fails.
NUMBERS = "procrastinate_jobs_number_seq"
#: What many partitions have as the default of a partition.
NO_PARTITION = -1
#: The default of an id there: it says the partition in which all jobs have been.
JOB_ID = f"nextval('{{schema}}.{NUMBERS}') * {MANY} + {VALUES.index(0)}"


def in_quotes(name: str) -> str:
    """Return a name that the server has given as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def partition_check(boundary: int | str) -> str:
    """Return the constraint that an id above the boundary says the partition of its job."""
    values = ",".join(map(str, VALUES))
    return (
        f"constraint {PARTITION_CHECK} check (id <= {boundary}"
        f" or partition = ('{{{values}}}'::smallint[])[id % {MANY} + 1])"
    )


@functools.cache
def parts(partitions: Partitions = ONE) -> Mapping[str, str]:
    """Return the parts of all tables, and the SQL that makes each, with markers for the schema."""
    return {**_of_script(), **dict(_of_many(partitions))} if partitions.are_many else _of_script()


def _of_many(partitions: Partitions) -> Iterator[tuple[str, str]]:
    """What many partitions have instead, or beside it."""
    jobs = "alter table {schema}.procrastinate_jobs"
    yield "default of procrastinate_jobs.id", f"{jobs} alter column id set default {JOB_ID}"
    yield (
        "default of procrastinate_jobs.partition",
        f"{jobs} alter column partition set default {NO_PARTITION}",
    )
    check = partition_check(partitions.boundary_id)
    yield f"constraint {PARTITION_CHECK}", f"{jobs} add {check}"


@functools.cache
def _of_script() -> Mapping[str, str]:
    text = (Path(__file__).parent / "schema.sql").read_text("utf-8")
    found: dict[str, str] = {}
    for unlogged, table, body in _TABLE.findall(text):
        found |= dict(_of_table(f"{{schema}}.{table}", table, body))
        if not unlogged:
            found[f"{_LOGGING}{table}"] = f"alter table {{schema}}.{table} set logged"
    for kind, name, rest in _INDEX.findall(text):
        found[f"{kind} {name}"] = f"create {kind} concurrently {name}{_on_a_line(rest)}"
    return found


def _of_table(place: str, table: str, body: str) -> Iterator[tuple[str, str]]:
    for name, line in _COLUMN.findall(body):
        column, what = f"{table}.{name}", _COMMENT.sub("", line)
        yield f"column {column}", f"alter table {place} add column {name} {what}"
        default = _DEFAULT.search(what)
        if default:
            yield (
                f"default of {column}",
                f"alter table {place} alter column {name} set default {default[1]}",
            )
        if " not null" in what:
            yield f"{_NOT_NULL}{column}", f"alter table {place} alter column {name} set not null"
    for constraint, name in _CONSTRAINT.findall(body):
        yield f"constraint {name}", f"alter table {place} add {_on_a_line(constraint)}"
    yield f"{_VISIBLE}{table}", f"alter table {place} disable row level security"


def _on_a_line(text: str) -> str:
    return re.sub(r"(?<=\() | (?=\))", "", re.sub(r"\s+", " ", text))


def is_vital(part: str) -> bool:
    """Whether statements fail without a part, or jobs are done twice."""
    sort, name = part.rsplit(" ", 1)
    if sort == "constraint":
        return name.endswith("_pkey")
    if f"{sort} " in (_NOT_NULL, _LOGGING, _VISIBLE):
        return False
    return not sort.endswith("index") or name == QUEUEING_LOCK_KEY


def lack_of(missing: Sequence[str], home: str, partitions: Partitions = ONE) -> str:
    """Return what to tell about parts that are missing in a schema, and how to make them."""
    gone = {part.partition(" ")[2] for part in missing if part.startswith("column ")}
    missing = [part for part in missing if part.rpartition(" of ")[2] not in gone]
    things = [part for part in missing if not part.startswith((_LOGGING, _VISIBLE))]
    said = [f"procrastinate's tables lack the {', the '.join(things)}"] if things else []
    for part in missing:
        table = part.rpartition(" ")[2]
        if part.startswith(_LOGGING):
            said.append(f"{table} is unlogged: a crash of the server would empty it")
        elif part.startswith(_VISIBLE):
            said.append(
                f"{table} has row level security and no policy: roles other than its owner see no"
                " rows, and get no error"
            )
    named = " (and drop what has its name, if it is another one, or was never validated)"
    return f"{'; '.join(said)}: {_what_to_run(missing, home, partitions)}{named if things else ''}"


def _what_to_run(missing: Sequence[str], home: str, partitions: Partitions) -> str:
    if len(missing) > SHOWN:
        return "make each by its part of the script that `procrastinate schema --read` prints"
    place = f"{in_quotes(home)}."
    make = parts(partitions)
    return "run " + ", ".join(f"`{make[each].replace('{schema}.', place)}`" for each in missing)
