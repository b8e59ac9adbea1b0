"""Flows that create, migrate and check the schema.

Migrations are numbered files in ``migrations/``. Each says from which schema version on code
fits the database once it is applied (``-- compatible-from: N``): older workers may go on through
a migration that only adds things. All of them run in one transaction, behind a lock that is held
until its end, so that any number of processes may ask for it at once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from procrastinate.drive import Flow, Request, Script
from procrastinate.errors import SchemaError, SchemaNotApplied, SchemaOutdated, SchemaTooNew
from procrastinate.storage.statements import Statements

FOLDER = Path(__file__).parent
_FILE_NAME = re.compile(r"^(\d{4})_(\w+)\.sql$")
_COMPATIBLE_FROM = re.compile(r"^-- compatible-from: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: its number, its name, and its SQL with schema markers."""

    version: int
    name: str
    compatible_from: int
    text: str


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Which migrations a database has, and the oldest code that fits it."""

    exists: bool
    versions: tuple[int, ...] = ()
    compatible_from: int = 0


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
            found.append(Migration(int(match[1]), match[2], int(compatible[1]), text))
    return tuple(sorted(found, key=lambda migration: migration.version))


def latest_version() -> int:
    """Return the schema version that this code is written for."""
    return migrations()[-1].version


def current_schema_sql(schema: str | None) -> str:
    """Return the whole schema as one SQL script."""
    return Statements(schema).render((FOLDER / "schema.sql").read_text("utf-8"))


def schema_state() -> Flow[SchemaState]:
    """Return what the database says of its schema."""
    rows = yield Request("migrations_table")
    if not rows[0][0]:
        return SchemaState(exists=False)
    rows = yield Request("list_migrations")
    return SchemaState(
        True, tuple(row[0] for row in rows), max((row[1] for row in rows), default=0)
    )


def problem_with(state: SchemaState) -> SchemaError | None:
    """Return why this code does not fit a database in this state, or None where it does."""
    if not state.exists:
        return SchemaNotApplied(
            "procrastinate's tables are not in this database (or not on the search path):"
            " run `procrastinate schema --apply`"
        )
    missing = [m.version for m in migrations() if m.version not in state.versions]
    if missing:
        return SchemaOutdated(
            f"the database lacks the migrations {_list(missing)}:"
            " run `procrastinate schema --migrate`"
        )
    if state.compatible_from > latest_version():
        return SchemaTooNew(
            f"the database is at schema version {max(state.versions)}, which needs code for schema"
            f" version {state.compatible_from} or newer, and this code is for version"
            f" {latest_version()}: upgrade the package procrastinate"
        )
    return None


def check_schema() -> Flow[SchemaState]:
    """Return the schema's state, or raise a `SchemaError` that says why this code does not fit."""
    state = yield from schema_state()
    problem = problem_with(state)
    if problem is not None:
        raise problem
    return state


def migrate(*, schema: str | None, create: bool) -> Flow[list[Migration]]:
    """Apply the migrations that the database lacks, in order, and return them.

    With ``create``, also to a database that has none; else that raises `SchemaNotApplied`.
    Raises `SchemaTooNew` before anything is changed. Needs a transaction.
    """
    yield Request("lock_migrations")
    state = yield from schema_state()
    problem = problem_with(state)
    if isinstance(problem, SchemaTooNew) or (isinstance(problem, SchemaNotApplied) and not create):
        raise problem
    if create and not state.exists and schema is not None:
        rows = yield Request("schema_exists")
        if not rows[0][0]:
            yield Request("create_schema")
    missing = [m for m in migrations() if m.version not in state.versions]
    for migration in missing:
        yield from _apply(migration)
    return missing


def _apply(migration: Migration) -> Flow[None]:
    yield Script(f"migration {migration.version}", migration.text)
    yield Request(
        "record_migration",
        version=migration.version,
        name=migration.name,
        compatible_from=migration.compatible_from,
    )


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
