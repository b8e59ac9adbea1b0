"""Creating the schema, and running the migrations that a database lacks, while everybody works on.

Rules

1. One process at a time migrates. It holds a lock in a transaction of its own, which is idle.
2. A new schema is made from ``schema.sql`` in one transaction, and records all migrations.
3. A migration runs in one transaction, statement by statement, or outside of any (``-- outside of
   a transaction:``). In the second case each of its statements must be able to run again, because
   a migration that was interrupted starts over. What reads many rows is done there: CREATE INDEX
   CONCURRENTLY, VALIDATE.
4. A migration that adds checks says NOT VALID, and a later one validates them. Before it runs, old
   rows are looked at: if some do not fit, it is not run, and the error names them.
5. An insert waits at most 0.3 s. A migration takes its locks first, with a ``lock_timeout``, that
   on jobs last; what comes then changes the catalog only. If it does not get a lock, it is rolled
   back and tried again. Before them it takes SHARE UPDATE EXCLUSIVE, which keeps nothing from work
   but VACUUM: the server ends an autovacuum for a waiting lock, but only after a second.
   (On a distributed database it waits longer, because all nodes change their shards meanwhile.)
6. At the end the functions are made anew, if they differ from those of this code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from procrastinate.drive import Flow, Request, Script, Step, Steps
from procrastinate.errors import (
    ConnectorException,
    InvalidData,
    SchemaError,
    SchemaOutdated,
)
from procrastinate.storage import schema as schemas
from procrastinate.storage.schema import TABLES, Migration, SchemaState, migrations, problem_with
from procrastinate.storage.schema_functions import functions_script
from procrastinate.storage.settings import read_settings

TRIES = 60  # for the locks of a migration
PAUSE = 1  # seconds between two of them
IN_USE = ("55P03", "40P01")  # the server's lock_not_available and deadlock_detected
SEQUENTIAL = "set local citus.multi_shard_modify_mode to 'sequential'"
#: These stand for what is no migration: the last two only if nothing else was to be done.
RECORDS = Migration(0, "records", 0, "")
FUNCTIONS = Migration(0, "functions", 0, "")
SETTINGS = Migration(0, "settings", 0, "")
_SETTINGS_ROW = """
    insert into {schema}.procrastinate_settings (partitions, boundary_id)
    select 1, 0 where not exists (select from {schema}.procrastinate_settings)
"""
SHOWN = 10  # rows that do not fit
_ALTERED = re.compile(r"^alter table \{schema\}\.(\w+)(.*?);$", re.MULTILINE | re.DOTALL)
_DOLLARS = re.compile(r"\$\w*\$")
_CHECK = re.compile(r"add constraint (\w+)\s+check \((.*?)\)\s+not valid", re.DOTALL)
_KEYS = {"procrastinate_periodic": "task_name || ' ' || periodic_id"}


@dataclass(frozen=True, slots=True)
class Begun:
    """Whether this process has the lock, and the migrations of a schema that it has created."""

    is_locked: bool
    created: list[Migration] | None = None


def begin(*, schema: str | None, create: bool) -> Flow[Begun]:
    """Take the lock of rule 1, if it is free. Needs a transaction, which holds it to its end.

    With ``create`` a schema that is not there is made in the same transaction. Raises `SchemaError`
    if the search_path leads nowhere.
    """
    ((locked,),) = yield Request("try_lock_migrations")
    if not locked or not create:
        return Begun(bool(locked))
    state = yield from schemas.schema_state()
    if state.exists or state.coordinator is not None:  # `migrate` says what is wrong
        return Begun(True)
    yield from _create(schema)
    return Begun(True, list(migrations()))


def migrate() -> Steps[list[Migration]]:
    """Apply the migrations that existing tables lack, in order, and return them. Needs the lock.

    Records that were missing are written, and come first.
    Raises `SchemaError` before anything is changed.
    """
    state: SchemaState = yield Step(schemas.schema_state())
    problem = problem_with(state)
    if problem is not None and not isinstance(problem, SchemaOutdated):
        raise problem
    done: Collection[int] = state.versions
    lacks_records = not done or list(done) != list(range(1, max(done) + 1))
    if lacks_records:
        done = yield Step(_adopt(done), transaction=True)
    if not state.rows_of_settings:
        yield Step(restore_settings(), transaction=True)
    missing = [each for each in migrations() if each.version not in done]
    for migration in missing:
        yield from _apply(migration)
    if missing or state.stale_functions or not state.versions:
        yield Step(renew_functions(), transaction=True)
    written = [RECORDS] * lacks_records
    if missing:
        return written + missing
    settings = [SETTINGS] * (not state.rows_of_settings)
    return written + settings + [FUNCTIONS] * bool(state.stale_functions)


def _create(schema: str | None) -> Flow[None]:
    ((is_there, first_of_path, path),) = yield Request("creation_schema")
    if schema is None and first_of_path is None:
        raise SchemaError(
            f"none of the schemas on the search_path ({path}) is in this database, so there is"
            ' nowhere to create tables: create one, or name one by `schema="..."` for the connector'
        )
    if schema is not None and not is_there:
        yield Request("create_schema")
    yield Script("the schema", schemas.creation_script())


def _adopt(recorded: Collection[int]) -> Flow[set[int]]:
    """Record the migrations whose records are missing, as far as the tables look like it.

    Below the last record, or all if there is none: tables that were made by hand have none.
    """
    ((_, version),) = yield Request("schema_looks")
    last = min(version, max(recorded, default=version))
    made = [each for each in migrations() if each.version <= last]
    for migration in made:
        yield from _record(migration)
    return {*recorded, *(each.version for each in made)}


def restore_settings() -> Flow[None]:
    """Write the row of settings that is missing, of a database that is not distributed."""
    yield Script("the settings", _SETTINGS_ROW)


def renew_functions() -> Flow[None]:
    """Make the functions anew, for the partitions that the settings say."""
    partitions = yield from read_settings()
    yield Script("the functions", functions_script(partitions))


def _apply(migration: Migration) -> Steps[None]:
    yield Step(_refuse_misfits(migration))
    if migration.outside:
        yield Step(_run_outside(migration))
        return
    for last in [False] * (TRIES - 1) + [True]:
        try:
            yield Step(_run_inside(migration), transaction=True)
        except ConnectorException as exc:
            if exc.sqlstate not in IN_USE:
                raise
            if last:
                users = yield Step(table_users())
                raise _in_use(migration, users) from exc
        else:
            return
        yield Step(_pause())


def _run_inside(migration: Migration) -> Flow[None]:
    # What changes many shards of a distributed table goes over one connection to each node. A plain
    # server takes it for a custom setting. (Nodes get the text of a whole message: so each
    # statement has one of its own.)
    first = Script("one connection to each node", SEQUENTIAL)
    yield first.under(transaction_isolation="read committed")  # as the statements that follow
    for statement in statements_of(migration):
        try:
            yield Script(f"migration {migration.version}", statement)
        except SchemaError as exc:  # not what the code lacks, but what the migration did not find
            said, *_ = str(exc.__cause__ or exc).splitlines()
            raise SchemaError(f"migration {migration.title} cannot be run: {said}") from exc
    yield from _record(migration)


def _run_outside(migration: Migration) -> Flow[None]:
    for (index,) in (yield Request("broken_indexes", prefix="procrastinate_")):
        yield Script("drop a broken index", f"drop index concurrently if exists {index}")
    for statement in statements_of(migration):
        try:
            yield Script(f"migration {migration.version}", statement)
        except InvalidData:  # a row that came after rule 4 had looked
            for earlier in migrations():
                yield from _refuse_misfits(earlier)
            raise
    yield from _record(migration)


def statements_of(migration: Migration) -> list[str]:
    """Return the statements of a migration. Each ends in a semicolon at the end of a line.

    One within dollar quotes is not such an end: they hold the texts of functions.
    """
    lines = [line for line in migration.text.splitlines() if not line.startswith("--")]
    found: list[str] = [""]
    quote = None
    for line in lines:
        found[-1] += f"{line}\n"
        for tag in _DOLLARS.findall(line):
            if quote in (None, tag):
                quote = tag if quote is None else None
        if quote is None and line.endswith(";"):
            found.append("")
    return [each.strip().removesuffix(";") for each in found if each.strip()]


def _record(migration: Migration) -> Flow[None]:
    yield Request(
        "record_migration",
        version=migration.version,
        name=migration.name,
        compatible_from=migration.compatible_from,
    )


def _pause() -> Flow[None]:
    yield Request("pause", seconds=PAUSE)


# Rows that do not fit


def _refuse_misfits(migration: Migration) -> Flow[None]:
    """Raise if old rows do not fit the checks that a migration adds."""
    misfits: list[str] = []
    for table, checks in added_checks(migration):
        look = Script("rows that do not fit", _misfits_sql(table, checks))
        rows = yield look.under(statement_timeout="0")
        misfits += [f"{name}: {count} of {table} ({_some(keys)})" for name, count, keys in rows]
    if misfits:
        raise SchemaOutdated(
            f"migration {migration.title} is not run, because rows do not fit its checks:"
            f" {'; '.join(misfits)}. Correct these rows, or delete them, and run it again. (What"
            " they must be is in its file: `procrastinate schema --migrations-path`)"
        )


def added_checks(migration: Migration) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each table with the checks that a migration adds to it: names and conditions.

    But not what a function of ours checks, which the migration has yet to make: it stands for
    earlier checks.
    """
    for table, changes in _ALTERED.findall(migration.text):
        checks = [each for each in _CHECK.findall(changes) if "{schema}." not in each[1]]
        if checks:
            yield table, checks


def _misfits_sql(table: str, checks: list[tuple[str, str]]) -> str:
    """Return a query for (check, how many rows, the keys of some); it reads the table once."""
    key = _KEYS.get(table, "id")
    together = " and ".join(f"({condition})" for _, condition in checks)
    each = ", ".join(f"('{name}', ({condition}))" for name, condition in checks)
    return (
        f"select misfit.name, count(*), (array_agg(misfit.key order by misfit.key))[:{SHOWN + 1}]"
        f" from (select ({key})::text as key, checks.name from {{schema}}.{table}"
        f" cross join lateral (values {each}) as checks(name, fits)"
        f" where ({together}) is false and checks.fits is false) as misfit"
        " group by misfit.name order by misfit.name"
    )


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:SHOWN])
    return f"{shown}, ..." if len(keys) > SHOWN else shown


# Tables that are in use


def table_users() -> Flow[str]:
    """Return the sessions that have our tables in use, as a text: empty if there is none."""
    rows = yield Request("table_users", names=list(TABLES))
    return ", ".join(f"pid {pid} for {seconds or 0:.0f} s" for pid, seconds in rows)


def _in_use(migration: Migration, users: str) -> SchemaOutdated:
    return SchemaOutdated(
        f"migration {migration.title} did not get its lock on the tables in {TRIES} tries, because"
        f" transactions have them in use ({users or 'they have ended now'}): end these"
        " (`select pg_terminate_backend(PID)`), or run it again later; nothing was changed"
    )
