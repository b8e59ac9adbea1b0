"""Statements keep within one partition, so that a distributed database can run each on one node.

Two checks of every statement, both on plain PostgreSQL. `RULES` are read from the statement's
parse tree: a distributed database (Citus) refuses or splits what breaks them. The other check looks
at the plan on partitioned tables: it must read no partition but the statement's own.

Some statements break a rule today. They are listed, and a list may only become shorter: a statement
that breaks a rule for the first time fails, and so does an entry that is no longer needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import every_statement
import parse_trees
import psycopg2
import pytest
from parse_trees import Node, walk

import procrastinate

pytestmark = (
    pytest.mark.slow
)  # the trees and plans are PostgreSQL's, whichever Python asks for them

#: These are no statements with a tree or a plan.
UTILITIES = frozenset({"create_schema", "set_savepoint", "drop_savepoint", "return_to_savepoint"})
STATEMENTS = every_statement.names(without=UTILITIES)

SELECT, UPDATE, INSERT, DELETE = "1", "2", "3", "4"
_OPERATORS = frozenset({"OPEXPR", "SCALARARRAYOPEXPR", "DISTINCTEXPR", "NULLIFEXPR"})
_STORED = ("0", "6")  # the kinds of what a FROM names: a table, a CTE
_CONDITIONALS = frozenset({"CASEEXPR", "COALESCEEXPR", "MINMAXEXPR"})


@pytest.fixture(scope="module")
def connection(procrastinate_server: Any) -> Iterator[Any]:
    """A connection that finds partitioned tables of jobs and locks, with partitions 0, 7 and 8."""
    with procrastinate_server.database() as dsn:
        with procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open() as app:
            app.schema_manager.apply_schema()
        connection = psycopg2.connect(dsn)
        with connection.cursor() as cursor:
            cursor.execute("create schema parted")
            for table in ("jobs", "locks", "waits"):
                cursor.execute(
                    f"create table parted.procrastinate_{table}"
                    f" (like public.procrastinate_{table} including all)"
                    " partition by list (partition)"
                )
                for value in (0, 7, 8):
                    cursor.execute(
                        f"create table parted.{table}_{value} partition of"
                        f" parted.procrastinate_{table} for values in ({value})"
                    )
        connection.commit()
        yield connection
        connection.close()


# --- Plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_plan_reads_one_partition(connection: Any, name: str) -> None:
    query = every_statement.query(name, partition=7)
    read = tables_read(connection, query.sql, every_statement.literal(query))
    others = {each for each in read if each.endswith(("_0", "_8"))}
    assert others == set(), read


def test_a_plan_without_the_partition_is_found(connection: Any) -> None:
    some = tables_read(connection, "select from procrastinate_jobs where id = 1", None)
    assert some == {"jobs_0", "jobs_7", "jobs_8"}
    sql = "select from procrastinate_locks where lock = 'a' and partition = 0"
    assert tables_read(connection, sql, None) == {"locks_0"}


def tables_read(connection: Any, sql: str, params: Any) -> set[str]:
    """Return the names of the tables in the plan of a statement, which is not run."""
    connection.rollback()
    with connection.cursor() as cursor:
        cursor.execute("set local search_path = parted, public")
        cursor.execute(f"explain (format json) {sql}", params)
        plan = cursor.fetchone()[0][0]["Plan"]
    connection.rollback()
    return {each["Relation Name"] for each in _steps(plan) if "Relation Name" in each}


def _steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _steps(child)


# --- Parse trees ----------------------------------------------------------------------------------


class Catalog:
    """What the server says of the functions, types and tables that its trees name by number."""

    def __init__(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("select oid, provolatile = 'i', proname from pg_proc")
            rows = cursor.fetchall()
            self.is_immutable = {oid: immutable for oid, immutable, _ in rows}
            self.function_name = {oid: name for oid, _, name in rows}
            cursor.execute("select oid, typinput::oid, typoutput::oid from pg_type")
            self._texts = {oid: (reading, writing) for oid, reading, writing in cursor.fetchall()}
            cursor.execute("select oid from pg_class where relname like 'procrastinate%'")
            self.ours = {oid for (oid,) in cursor.fetchall()}
        connection.rollback()

    def is_unsteady(self, node: Node) -> bool:
        """Whether a node calls a function that is not immutable, by itself."""
        return any(not self.is_immutable[each] for each in self._functions(node))

    def _functions(self, node: Node) -> Iterator[int]:
        if node.kind == "FUNCEXPR":
            yield node.oid("funcid")
        elif node.kind in _OPERATORS:
            yield node.oid("opfuncid")
        elif node.kind == "COERCEVIAIO":
            yield self._texts[node.oid("resulttype")][0]
            for argument in node.nodes("arg"):
                yield self._texts[type_of(argument)][1]

    def reads_ours(self, tree: parse_trees.Tree) -> bool:
        return any(
            each.kind == "RANGETBLENTRY" and int(str(each["relid"] or 0)) in self.ours
            for each in walk(tree)
        )

    def notifies(self, tree: parse_trees.Tree) -> bool:
        return any(
            each.kind == "FUNCEXPR" and self.function_name[each.oid("funcid")] == "pg_notify"
            for each in walk(tree)
        )


_TYPE_FIELDS = (
    *("vartype", "consttype", "funcresulttype", "opresulttype", "resulttype", "casetype"),
    *("coalescetype", "array_typeid", "aggtype", "wintype", "paramtype", "minmaxtype", "typeId"),
)


def type_of(node: Node) -> int:
    """Return the type of an expression: 0 if it is none that core's statements convert."""
    for field in _TYPE_FIELDS:
        if node[field] is not None:
            return node.oid(field)
    return 0


def changes(tree: parse_trees.Tree, *commands: str) -> Iterator[Node]:
    for each in walk(tree):
        if each.kind == "QUERY" and each["commandType"] in commands:
            yield each


def common_tables(query: Node) -> list[Node]:
    return [each for cte in query.nodes("cteList") for each in cte.nodes("ctequery")]


def computes_from_columns(tree: Node, catalog: Catalog) -> bool:
    """An UPDATE or DELETE hands columns to functions that are not immutable."""
    return any(
        catalog.is_unsteady(node) and any(each.kind == "VAR" for each in walk(node))
        for query in changes(tree, UPDATE, DELETE)
        for node in _said(query)
    )


def decides_unsteadily(tree: Node, catalog: Catalog) -> bool:
    """A change calls functions that are not immutable in a CASE, COALESCE or DO UPDATE."""
    return any(
        catalog.is_unsteady(each)
        for query in changes(tree, UPDATE, DELETE, INSERT)
        for node in _said(query)
        if node.kind in _CONDITIONALS or node.kind == "ONCONFLICTEXPR"
        for each in walk(node)
    )


def returns_unsteadily(tree: Node, catalog: Catalog) -> bool:
    """A change calls functions that are not immutable after RETURNING."""
    return any(
        catalog.is_unsteady(each)
        for query in changes(tree, UPDATE, DELETE, INSERT)
        for each in walk(query["returningList"])
    )


def _said(query: Node) -> Iterator[Node]:
    """The nodes of the expressions in SET, WHERE, RETURNING and ON CONFLICT."""
    for field in ("targetList", "jointree", "returningList", "onConflict"):
        yield from walk(query[field])


def inserts_below(tree: Node, catalog: Catalog) -> bool:
    """An INSERT stands in a CTE."""
    inserting = (
        each
        for query in walk(tree)
        if query.kind == "QUERY"
        for each in common_tables(query)
        if each["commandType"] == INSERT
    )
    return any(True for _ in inserting)


def changes_above_a_tableless_cte(tree: Node, catalog: Catalog) -> bool:
    """An UPDATE or DELETE is not in a CTE, and has a CTE that reads no table (and no other CTE)."""
    return tree["commandType"] in (UPDATE, DELETE) and not all(
        any(each.kind == "RANGETBLENTRY" and each["rtekind"] in _STORED for each in walk(cte))
        for cte in common_tables(tree)
    )


def notifies_from_a_table(tree: Node, catalog: Catalog) -> bool:
    """pg_notify may run on another node than ours, where no listener hears it."""
    return catalog.notifies(tree) and catalog.reads_ours(tree)


Rule = Callable[[Node, Catalog], bool]

#: What breaks each rule today.
RULES: dict[Rule, frozenset[str]] = {
    computes_from_columns: frozenset(),
    decides_unsteadily: frozenset(),
    returns_unsteadily: frozenset(),
    inserts_below: frozenset({"defer_ticks"}),
    changes_above_a_tableless_cte: frozenset(),
    notifies_from_a_table: frozenset({"defer_ticks"}),
}


@pytest.fixture(scope="module")
def catalog(connection: Any) -> Catalog:
    return Catalog(connection)


@pytest.fixture(scope="module")
def trees(connection: Any) -> dict[str, Node]:
    queries = {name: every_statement.query(name, partition=7) for name in STATEMENTS}
    return {
        name: parse_trees.tree_of(connection, query.sql, every_statement.literal(query))
        for name, query in queries.items()
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_statement_runs_whole_on_one_node(
    trees: dict[str, Node], catalog: Catalog, rule: Rule
) -> None:
    breaking = {name for name, tree in trees.items() if rule(tree, catalog)}
    assert breaking == RULES[rule], rule.__doc__


#: What breaks a rule, and what does the same without breaking it.
EXAMPLES: list[tuple[Rule, str, str]] = [
    (
        computes_from_columns,
        "update procrastinate_jobs set lock = status::text where id = 1",
        "update procrastinate_jobs set lock = lock || queue_name where id = 1",
    ),
    (
        computes_from_columns,
        "delete from procrastinate_jobs where finished_at < now() - interval '1 s' * priority",
        "delete from procrastinate_jobs where finished_at < now()",
    ),
    (
        decides_unsteadily,
        "update procrastinate_jobs set started_at = case when id = 1 then now() end",
        "update procrastinate_jobs set started_at = now()",
    ),
    (
        decides_unsteadily,
        (
            "insert into procrastinate_workers (id, name) values (1, 'a')"
            " on conflict (id, partition) do update set last_heartbeat = now()"
        ),
        (
            "insert into procrastinate_workers (id, name) values (1, 'a')"
            " on conflict (id, partition) do update set last_heartbeat = excluded.last_heartbeat"
        ),
    ),
    (
        returns_unsteadily,
        "delete from procrastinate_queues returning paused_until > now()",
        (
            "with gone as (delete from procrastinate_queues returning paused_until)"
            " select paused_until > now() from gone"
        ),
    ),
    (
        inserts_below,
        ("with new as (insert into procrastinate_locks (lock, job_id) values ('a', 1)) select"),
        "insert into procrastinate_locks (lock, job_id) values ('a', 1)",
    ),
    (
        changes_above_a_tableless_cte,
        (
            "with given as (select 1 as id) delete from procrastinate_jobs as job"
            " using given where job.id = given.id"
        ),
        (
            "with given as (select 1 as id), gone as (delete from procrastinate_jobs as job"
            " using given where job.id = given.id returning 1) select from gone"
        ),
    ),
    (
        changes_above_a_tableless_cte,
        (
            "with given as (select 1 as id) update procrastinate_jobs as job set priority = 1"
            " from given where job.id = given.id"
        ),
        (
            "with given as (select id from procrastinate_jobs), same as (select id from given)"
            " update procrastinate_jobs as job set priority = 1 from same where job.id = same.id"
        ),
    ),
    (
        notifies_from_a_table,
        "select pg_notify('a', lock) from procrastinate_locks",
        "select pg_notify('a', 'b')",
    ),
]


@pytest.mark.parametrize(("rule", "wrong", "right"), EXAMPLES)
def test_a_broken_rule_is_found(
    connection: Any, catalog: Catalog, rule: Rule, wrong: str, right: str
) -> None:
    assert rule(parse_trees.tree_of(connection, wrong, None), catalog)
    assert not rule(parse_trees.tree_of(connection, right, None), catalog)
