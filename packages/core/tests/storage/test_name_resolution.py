"""A role that may create functions in a schema on the search path runs no code as our roles.

`overloads` makes, in public, a trap for each function and operator that our statements call, for
each combination of their arguments' types and others like them. The role that makes them may create
things there, as everybody may in PostgreSQL 14, and no more. No trap is sprung.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import every_statement
import overloads
import parse_trees
import psycopg2
import pytest
from psycopg2 import extensions
from whole_queue import everything

import procrastinate
from procrastinate.storage.schema_functions import functions_script
from procrastinate.storage.statements import Statements

pytestmark = pytest.mark.slow  # names are PostgreSQL's to resolve, whichever Python asks

UTILITIES = frozenset({"create_schema", "set_savepoint", "drop_savepoint", "return_to_savepoint"})
STATEMENTS = every_statement.names(without=UTILITIES)


#: What an administrator runs of ours that calls functions: it makes our own anew.
MAKES_FUNCTIONS = f"""
drop function
    procrastinate_defer_job(text, jsonb, text, integer, text, text, timestamptz, regclass, jsonb),
    procrastinate_defer_job_with_key
        (text, text, jsonb, text, integer, text, text, timestamptz, regclass, jsonb),
    procrastinate_defer_jobs(jsonb, jsonb, regclass),
    procrastinate_defer_alike(jsonb, jsonb, regclass);
{Statements().render(functions_script())}
"""


@dataclass
class Place:
    """A database full of traps, and its owner's connection to it."""

    dsn: str
    connection: Any
    intruder: str
    traps: int
    worker: str

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def sprung(self) -> bool:
        """Whether any trap was sprung since the last time. (Sequences know no rollback.)"""
        ((sprung,),) = self.query("select is_called from trap_sprung")
        self.query("select setval('trap_sprung', 1, false)")
        return bool(sprung)


def trees(connection: Any) -> Iterator[tuple[str, Any]]:
    for name in STATEMENTS:
        query = every_statement.query(name)
        yield name, parse_trees.tree_of(connection, query.sql, every_statement.literal(query))


@pytest.fixture(scope="module")
def place(procrastinate_server: Any) -> Iterator[Place]:
    unique = uuid.uuid4().hex[:12]
    intruder, worker = f"intruder_{unique}", f"worker_{unique}"
    with procrastinate_server.database() as dsn, closing(psycopg2.connect(dsn)) as connection:
        with procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open() as app:
            app.schema_manager.apply_schema()
        catalog = overloads.Catalog(connection)
        all_trees = [tree for _, tree in trees(connection)]
        all_trees += parse_trees.trees_of(connection, MAKES_FUNCTIONS, None)
        calls = {call for tree in all_trees for call in catalog.calls(tree)}
        assert len(calls) > 80
        connection.autocommit = True
        made = Place(
            dsn, connection, intruder, 0, extensions.make_dsn(dsn, user=worker, password=worker)
        )
        try:
            for role in (intruder, worker):
                made.query(f"create role {role} login password '{role}'")
            made.query(f"grant create, usage on schema public to {intruder}, {worker}")
            made.query(f"grant all on all tables in schema public to {worker}")
            made.query(f"grant all on all sequences in schema public to {worker}")
            made.query(f"grant execute on all functions in schema public to {worker}")
            made.query("create sequence trap_sprung")
            made.query("grant all on trap_sprung to public")
            made.traps = _set_traps(
                extensions.make_dsn(dsn, user=intruder, password=intruder), calls
            )
            connection.autocommit = False
            yield made
        finally:
            connection.rollback()
            connection.autocommit = True
            for role in (intruder, worker):
                made.query(f"drop owned by {role} cascade; drop role {role}")


#: What keeps a trap from being made: no right to our types, and that it is there already.
REFUSED = (psycopg2.errors.InsufficientPrivilege, psycopg2.errors.DuplicateFunction)


def _set_traps(dsn: str, calls: set[overloads.Call]) -> int:
    """Make as many as the role may, and return their number."""
    made = 0
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for trap in overloads.traps(calls):
                try:
                    cursor.execute(trap)
                except REFUSED:
                    continue
                made += 1
    return made


def taken(place: Place, catalog: overloads.Catalog, sql: str, params: Any) -> set[str]:
    """Return what a statement calls of the intruder's, or its error."""
    try:
        tree = parse_trees.tree_of(place.connection, sql, params)
    except psycopg2.Error as exc:
        return {str(exc)}
    return catalog.called_of(tree, place.intruder)


def test_no_statement_means_anything_but_postgresql_s_own_and_ours(place: Place) -> None:
    assert place.traps > 300
    catalog = overloads.Catalog(place.connection)
    found = {}
    for name in STATEMENTS:
        query = every_statement.query(name)
        found[name] = taken(place, catalog, query.sql, every_statement.literal(query))
    assert {name: called for name, called in found.items() if called} == {}


#: What the same place in a statement looked like, when it could be taken.
TAKEN = [
    "select unnest('{1}'::bigint[])",
    "select pg_notify('a', 'b'::varchar)",
    "select '{}'::jsonb -> 'omitted'",
    "select 1 where 'a'::varchar = 'a'::text",
    "select count('a'::text)",
]


@pytest.mark.parametrize("sql", TAKEN)
def test_the_traps_are_where_they_would_be_stepped_on(place: Place, sql: str) -> None:
    catalog = overloads.Catalog(place.connection)
    assert taken(place, catalog, sql, None)


@pytest.mark.parametrize("who", ["owner", "worker"])
async def test_the_whole_queue_steps_into_no_trap(place: Place, who: str) -> None:
    place.connection.rollback()
    place.connection.autocommit = True
    place.query("truncate procrastinate_jobs, procrastinate_locks, procrastinate_workers")
    place.sprung()
    rows, ran = await everything(place.query, place.dsn if who == "owner" else place.worker)
    assert len(rows) > 10
    assert len(ran) > 5
    assert not place.sprung()
    place.query("select unnest('{1}'::bigint[])")
    assert place.sprung()
    place.connection.autocommit = False


def test_an_administrator_who_makes_the_functions_anew_steps_into_no_trap(place: Place) -> None:
    """As `schema --migrate` does after each release that has changed them."""
    catalog = overloads.Catalog(place.connection)
    made = parse_trees.trees_of(place.connection, MAKES_FUNCTIONS, None)
    assert len(made) > 10
    assert [tree for tree in made if catalog.called_of(tree, place.intruder)] == []
    place.connection.autocommit = True
    place.sprung()
    place.query(MAKES_FUNCTIONS)
    assert not place.sprung()
    place.connection.autocommit = False
