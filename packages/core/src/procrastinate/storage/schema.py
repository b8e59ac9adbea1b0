"""What the database says of its schema, and whether this code fits it.

Each migration is a numbered file in ``migrations/``. It says from which schema version on code fits
the database once it is applied (``-- compatible-from: N``): older workers may go on through a
migration that only adds things. `procrastinate.storage.migrating` says how they are run.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from procrastinate.drive import Flow, Request
from procrastinate.errors import (
    SchemaError,
    SchemaForeign,
    SchemaNotApplied,
    SchemaOutdated,
    SchemaTooNew,
)
from procrastinate.model.partitions import MANY, ONE, Partitions
from procrastinate.storage.defer import PARTITION_CHECK
from procrastinate.storage.nodes import coordinator_elsewhere
from procrastinate.storage.schema_definitions import changed, is_vital_change, told
from procrastinate.storage.schema_functions import (
    JOB_FITS,
    function_names,
    functions_script,
    stale_functions,
)
from procrastinate.storage.schema_moves import moving_back, not_here
from procrastinate.storage.schema_parts import IDS, NUMBERS, WORKER_IDS, is_vital, lack_of, parts
from procrastinate.storage.settings import settings_rows
from procrastinate.storage.statements import Statements

FOLDER = Path(__file__).parent
_FILE_NAME = re.compile(r"^(\d{4})_(\w+)\.sql$")
_COMPATIBLE_FROM = re.compile(r"^-- compatible-from: (\d+)$", re.MULTILINE)
_OUTSIDE = re.compile(r"^-- outside of a transaction:", re.MULTILINE)
_JOBS, _RECORDS = "procrastinate_jobs", "procrastinate_migrations"
_SETTINGS = "procrastinate_settings"
TABLES = (
    _JOBS,
    "procrastinate_locks",
    "procrastinate_workers",
    "procrastinate_periodic",
    "procrastinate_waits",
    "procrastinate_progress",
    "procrastinate_queues",
    "procrastinate_minutes",
    _SETTINGS,
    _RECORDS,
)
SEQUENCES = (IDS, WORKER_IDS)
RENEW = "run `procrastinate schema --migrate`"
CREATE = "run `procrastinate schema --apply`"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: its number, its name, and its SQL with schema markers."""

    version: int
    name: str
    compatible_from: int
    text: str
    outside: bool = False  # of a transaction: each statement runs by itself

    @property
    def title(self) -> str:
        """The name of its file, without the ending."""
        return f"{self.version:04}_{self.name}" if self.version else self.name


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Which migrations a database has, the oldest code that fits it, and what is wrong with it.

    ``places`` maps the name of each relation to the schema in which it was found, if it was, and
    ``moved`` that of one that was not to another schema that has such a relation.
    """

    exists: bool
    versions: tuple[int, ...] = ()
    compatible_from: int = 0
    places: tuple[tuple[str, str | None], ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    is_ours: bool = True  # not the tables of releases up to 3.x
    stale_functions: tuple[str, ...] = ()
    rows_of_settings: int = 1
    missing_parts: tuple[str, ...] = ()  # columns, defaults, indexes and constraints
    changed_parts: tuple[tuple[str, str], ...] = ()  # and what each is instead
    partitions: Partitions = ONE
    coordinator: str | None = None  # where it is, if this server is a node


@functools.cache
def migrations() -> tuple[Migration, ...]:
    """Return all migrations of this code, in order."""
    found = []
    for file in (FOLDER / "migrations").iterdir():
        match = _FILE_NAME.match(file.name)
        if match:
            text = file.read_text("utf-8")
            compatible = _COMPATIBLE_FROM.search(text)
            if compatible is None:
                raise ValueError(f"{file.name} lacks its compatible-from line")
            outside = _OUTSIDE.search(text) is not None
            found.append(Migration(int(match[1]), match[2], int(compatible[1]), text, outside))
    return tuple(sorted(found, key=lambda migration: migration.version))


def latest_version() -> int:
    """Return the schema version that this code is written for."""
    return migrations()[-1].version


def creation_script() -> str:
    """Return the SQL that makes the whole schema, with markers for its name."""
    records = ",\n".join(
        f"    ({each.version}, '{each.name}', {each.compatible_from})" for each in migrations()
    )
    return (
        f"{(FOLDER / 'schema.sql').read_text('utf-8')}\n{functions_script()}\n"
        "-- What `schema --migrate` has no need to do.\n"
        f"insert into {{schema}}.{_RECORDS} (version, name, compatible_from)\nvalues\n{records};\n"
    )


def current_schema_sql(schema: str | None) -> str:
    """Return the whole schema as one SQL script, which `check_schema` is content with."""
    where = "the first schema of the search_path" if schema is None else f"the schema {schema}"
    head = (
        f"-- The whole schema of procrastinate, at version {latest_version()}, for {where}.\n"
        "-- For psql: --single-transaction --set=ON_ERROR_STOP=1 --file=FILE\n"
    )
    if schema is not None:
        head += "create schema if not exists {schema_name};\n"
    return Statements(schema).render(f"{head}\n{creation_script()}")


def schema_state() -> Flow[SchemaState]:
    """Return what the database says of its schema.

    Nodes of a cluster have no functions that defer jobs. So only if something is wrong, it asks
    whether this server is a node.
    """
    state = yield from _state_here()
    if problem_with(state) is None:
        return state
    return replace(state, coordinator=(yield from coordinator_elsewhere()))


def _state_here() -> Flow[SchemaState]:
    rows = yield Request("schema_objects", names=[*TABLES, *SEQUENCES, NUMBERS])
    found = {name: schema for name, schema, _ in rows if schema is not None}
    settings = (yield from settings_rows()) if _SETTINGS in found else [ONE]
    partitions = settings[0] if settings else ONE
    are_many = (NUMBERS in found) if (NUMBERS in found) != (IDS in found) else partitions.are_many
    other = IDS if are_many else NUMBERS
    where = tuple((name, schema) for name, schema, _ in rows if name != other)
    moved = tuple((name, schema) for name, _, schema in rows if schema is not None)
    if _JOBS not in found:
        return SchemaState(bool(found), places=where, moved=moved)
    ((is_ours, _),) = yield Request("schema_looks")
    if not is_ours or _RECORDS not in found:
        return SchemaState(True, places=where, moved=moved, is_ours=bool(is_ours))
    rows = yield Request("list_migrations")
    had: dict[str, str] = dict((yield Request("schema_parts", names=list(TABLES))))
    functions = yield Request("schema_functions", names=function_names(partitions))
    return SchemaState(
        True,
        tuple(row[0] for row in rows),
        max((row[1] for row in rows), default=0),
        where,
        moved,
        stale_functions=stale_functions(functions, partitions),
        rows_of_settings=len(settings),
        missing_parts=tuple(each for each in parts(partitions) if each not in had),
        changed_parts=tuple(changed(had, partitions).items()),
        partitions=partitions,
    )


def problem_with(state: SchemaState, *, whole: bool = True) -> SchemaError | None:
    """Return why this code does not fit a database in this state, or None if it does.

    Unless it is to be ``whole``, checks and indexes may be missing that make rows safe and
    statements fast: a worker goes on without them.
    """
    if state.coordinator is not None:
        known = f", which this node knows as {state.coordinator}" * bool(state.coordinator)
        return SchemaError(
            "this server is a node of a Citus cluster, from which jobs are neither deferred nor"
            f" run: connect to the cluster's coordinator{known}"
        )
    if not state.exists:
        return SchemaNotApplied(
            f"procrastinate's tables are not in this database (or not on the search path): {CREATE}"
            + not_here(dict(state.moved).get(_JOBS))
        )
    found = _misplaced(state) or _wrong_version(state)
    found = found or _missing_tables(state) or _wrong_settings(state)
    return found or _wrong_parts(state, whole) or _old_functions(state, whole)


def _misplaced(state: SchemaState) -> SchemaError | None:
    """What keeps a migration from being run as well."""
    places = {name: schema for name, schema in state.places if schema is not None}
    if not state.is_ours:
        return SchemaForeign(
            f"the table {_JOBS} in the schema {places[_JOBS]} is of procrastinate 3.x or older, an"
            " earlier design with other tables, which this release neither uses nor migrates: give"
            ' this one a schema of its own, by `schema="..."` for the connector (or its'
            " search_path) and `procrastinate schema --apply`. Then let the old release finish its"
            " jobs, or take over those that wait by `procrastinate import`"
        )
    if len(set(places.values())) > 1:
        by_schema = {
            schema: [name for name, other in places.items() if other == schema]
            for schema in sorted(set(places.values()))
        }
        found = "; ".join(f"in {schema}: {', '.join(n)}" for schema, n in by_schema.items())
        return SchemaError(
            f"procrastinate's tables are in several schemas ({found}): name one of them by"
            ' `schema="..."` for the connector, or change the search_path, and drop or move what'
            " does not belong there"
        )
    if state.places and not {_JOBS, _RECORDS} <= places.keys():
        return _missing(state)
    return None


def _wrong_version(state: SchemaState) -> SchemaError | None:
    missing = [m.version for m in migrations() if m.version not in state.versions]
    if missing:
        numbers = ", ".join(map(str, missing))
        return SchemaOutdated(
            f"the database lacks {_plural('migration', missing)} {numbers}: {RENEW}"
        )
    if state.compatible_from > latest_version():
        return SchemaTooNew(
            f"the database is at schema version {max(state.versions)}, which needs code for schema"
            f" version {state.compatible_from} or newer, and this code is for version"
            f" {latest_version()}: upgrade the package procrastinate"
        )
    return None


def _missing_tables(state: SchemaState) -> SchemaError | None:
    return _missing(state) if any(schema is None for _, schema in state.places) else None


def _wrong_settings(state: SchemaState) -> SchemaError | None:
    """Its one row is missing, for instance, after a restore of the schema without its data."""
    are_many = any(name == NUMBERS for name, _ in state.places)
    if state.rows_of_settings == 1:
        return None if are_many == state.partitions.are_many else _wrong_count(are_many)
    said = f"the table {_SETTINGS} has {state.rows_of_settings or 'no'} rows instead of one"
    if state.rows_of_settings:
        return SchemaError(f"{said}: delete those that are not true")
    if are_many:
        return SchemaError(f"{said}, and the jobs are distributed: restore it from a backup")
    return SchemaOutdated(f"{said} (was the schema restored without its data?): {RENEW}")


def _wrong_count(are_many: bool) -> SchemaError:
    said, true, drawn = (ONE.count, MANY, NUMBERS) if are_many else (MANY, ONE.count, IDS)
    boundary = f"what {PARTITION_CHECK} of {_JOBS} compares ids with" if are_many else "0"
    return SchemaError(
        f"the table {_SETTINGS} says {said} as the number of partitions, but ids of jobs are drawn"
        f" from {drawn}, as with {true}: stop all workers, and run `update {_SETTINGS} set"
        f" partitions = {true}, boundary_id = B`, where B is {boundary}"
    )


def _wrong_parts(state: SchemaState, whole: bool) -> SchemaError | None:
    """Newer code that this one fits may have dropped, renamed or changed something."""
    if state.versions and max(state.versions) > latest_version():
        return None
    missing = [part for part in state.missing_parts if whole or is_vital(part)]
    other = {part: found for part, found in state.changed_parts if whole or is_vital_change(part)}
    home = dict(state.places).get(_JOBS) or "public"
    said = [lack_of(missing, home, state.partitions)] if missing else []
    said += [told(other, home, state.partitions)] if other else []
    return SchemaError(". ".join(said)) if said else None


def _missing(state: SchemaState) -> SchemaError:
    names = [name for name, schema in state.places if schema is None]
    home = next((schema for _, schema in state.places if schema is not None), "public")
    moved = {name: schema for name, schema in state.moved if name in names}
    said = [*moving_back(moved, home)]
    if len(moved) < len(names):
        said.append(
            f"restore {'the others' if moved else 'it'} from a backup, or make"
            f" {'them by their' if moved else 'it by its'} part of the script that `procrastinate"
            " schema --read` prints"
        )
    return SchemaError(
        f"of procrastinate's tables and sequences there is no {', '.join(names)}: {'; '.join(said)}"
    )


def _old_functions(state: SchemaState, whole: bool) -> SchemaError | None:
    """Newer code that this one fits may have made its own functions."""
    stale = [name for name in state.stale_functions if whole or name != JOB_FITS]
    if not stale or max(state.versions) > latest_version():
        return None
    is_not = "is not that" if len(stale) == 1 else "are not those"
    return SchemaOutdated(
        f"{_plural('function', stale)} {', '.join(stale)} {is_not} of this code and these tables"
        f" (were the tables moved or renamed, or given to another role?): {RENEW}"
    )


def check_schema(*, whole: bool = False) -> Flow[SchemaState]:
    """Return the schema's state, or raise a `SchemaError` that says why this code does not fit.

    For ``whole`` see `problem_with`.
    """
    state = yield from schema_state()
    problem = problem_with(state, whole=whole)
    if problem is not None:
        raise problem
    return state


def explanation(exc: SchemaError) -> Flow[SchemaError]:
    """Return what is wrong with the schema, if that is known, or else the server's own error."""
    problem = problem_with((yield from schema_state()))
    if problem is None:
        return exc
    problem.sqlstate = exc.sqlstate
    return problem


def _plural(noun: str, things: Sequence[object]) -> str:
    return f"the {noun}" if len(things) == 1 else f"the {noun}s"
