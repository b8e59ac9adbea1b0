"""Creating and migrating the schema: at once by many, in any schema, and never by old code."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import older_schemas
import psycopg2
import pytest

import procrastinate
from procrastinate import errors
from procrastinate.model.job import Status
from procrastinate.storage import schema
from procrastinate.storage.schema import SchemaState, problem_with
from procrastinate.storage.statements import load

VERSIONS = tuple(each.version for each in schema.migrations())
MIGRATIONS = [f"{each.version:04}_{each.name}" for each in schema.migrations()]

CATALOG = """
    select 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
        a.attnotnull::text, pg_get_expr(d.adbin, d.adrelid)
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'S')
    union all
    select 'index', indexname, indexdef, '', '', '' from pg_indexes where schemaname = 'public'
    union all
    select 'constraint', conname, pg_get_constraintdef(oid), '', '', ''
    from pg_constraint where connamespace = 'public'::regnamespace
    union all
    select 'validated', conname, convalidated::text, '', '', ''
    from pg_constraint where connamespace = 'public'::regnamespace
    union all
    select 'valid', indexrelid::regclass::text, indisvalid::text, '', '', ''
    from pg_index where indrelid = 'procrastinate_jobs'::regclass
    union all
    select 'rights', proname, proacl::text, '', '', ''
    from pg_proc where pronamespace = 'public'::regnamespace
    union all
    select 'rights', typname, typacl::text, '', '', ''
    from pg_type where typnamespace = 'public'::regnamespace and typtype = 'e'
    union all
    select 'function', proname, pg_get_functiondef(oid), '', '', ''
    from pg_proc where pronamespace = 'public'::regnamespace
    union all
    select 'type', typname, string_agg(enumlabel, ',' order by enumsortorder), '', '', ''
    from pg_type join pg_enum on enumtypid = pg_type.oid
    where typnamespace = 'public'::regnamespace group by typname
    union all
    select 'options', relname, reloptions::text, '', '', ''
    from pg_class where relnamespace = 'public'::regnamespace and reloptions is not null
    order by 1, 2, 3
"""


def open_app(dsn: str, **options: Any) -> Any:
    return procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn, **options)).open()


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_migrations_and_the_schema_file_give_the_same_catalog(
    procrastinate_dsn: str, query: Callable[..., Any], version: int
) -> None:
    with open_app(procrastinate_dsn) as app:
        older_schemas.make(version, query)
        assert app.schema_manager.apply_schema() == MIGRATIONS[version:]
        migrated = query(CATALOG)
        query("drop schema public cascade; create schema public")
        assert app.schema_manager.apply_schema() == MIGRATIONS
        created = query(CATALOG)
        query("drop schema public cascade; create schema public")
        query(app.schema_manager.get_schema())
        app.schema_manager.check()

    assert query(CATALOG) == created
    assert created == migrated
    assert len(migrated) > 50


def test_applying_twice_changes_nothing(procrastinate_dsn: str) -> None:
    with open_app(procrastinate_dsn) as app:
        assert app.schema_manager.apply_schema() == MIGRATIONS
        assert app.schema_manager.apply_schema() == []
        assert app.schema_manager.migrate() == []
        assert app.schema_manager.check().versions == VERSIONS


def test_migrating_nothing_says_what_to_do(procrastinate_dsn: str) -> None:
    with (
        open_app(procrastinate_dsn) as app,
        pytest.raises(errors.SchemaNotApplied, match="schema --apply"),
    ):
        app.schema_manager.migrate()


def test_migrating_to_leases_keeps_what_retries_by_hand_forgave(
    procrastinate_dsn: str, query: Callable[..., Any]
) -> None:
    """A running job keeps its number of attempts: its worker, an older one, is fenced by that."""
    older_schemas.make(3, query)
    with open_app(procrastinate_dsn) as app:
        query(
            "insert into procrastinate_jobs"
            " (task_name, queue_name, status, worker_id, attempts, attempts_forgiven) values"
            " ('new', 'q', 'todo', null, 0, null), ('retried', 'q', 'todo', null, 5, 4),"
            " ('failed', 'q', 'failed', 7, 3, null), ('running', 'q', 'doing', 7, 5, 4)"
        )
        assert app.schema_manager.migrate()[0] == "0004_leases"
    assert query("select task_name, attempts, lease from procrastinate_jobs order by id") == [
        ("new", 0, 0),
        ("retried", 1, 0),
        ("failed", 3, 0),
        ("running", 5, 0),
    ]


@pytest.mark.slow
def test_twenty_processes_apply_at_once(procrastinate_dsn: str, query: Callable[..., Any]) -> None:
    script = (
        "import sys, procrastinate\n"
        "app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=sys.argv[1]))\n"
        "app.open(); sys.stdin.readline(); print(app.schema_manager.apply_schema())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, procrastinate_dsn],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate(timeout=60)[0].strip() for process in processes)

    assert [process.returncode for process in processes] == [0] * 20
    assert said == [str(MIGRATIONS), *["[]"] * 19]
    assert query("select count(*) from procrastinate_migrations") == [(len(VERSIONS),)]


@pytest.mark.parametrize("name", ["jobs", "With Space", "ünï-code"])
def test_tables_live_in_the_schema_that_the_connector_names(
    procrastinate_dsn: str, query: Callable[..., Any], name: str
) -> None:
    with open_app(procrastinate_dsn, schema=name) as app:
        app.schema_manager.apply_schema()
        job_id = app.configure_task("task").defer()
        assert app.job_manager.get_job(job_id).task_name == "task"

    schemas = query(
        "select distinct nspname from pg_class join pg_namespace n on n.oid = relnamespace"
        " where relname ~ '^procrastinate'"
    )
    assert schemas == [(name,)]


def test_tables_live_in_the_first_schema_of_the_search_path(
    procrastinate_dsn: str, query: Callable[..., Any]
) -> None:
    query("create schema mine")
    with open_app(procrastinate_dsn, options="-c search_path=mine") as app:
        app.schema_manager.apply_schema()
        app.configure_task("task").defer()

    assert query("select task_name from mine.procrastinate_jobs") == [("task",)]


def test_two_schemas_of_one_database_do_not_meet(procrastinate_dsn: str) -> None:
    with (
        open_app(procrastinate_dsn, schema="a") as first,
        open_app(procrastinate_dsn, schema="b") as second,
    ):
        first.schema_manager.apply_schema()
        second.schema_manager.apply_schema()
        first.configure_task("task").defer()
        assert len(first.job_manager.list_jobs()) == 1
        assert second.job_manager.list_jobs() == []


@pytest.mark.parametrize("name", ["", "a'b", 'a"b', "x" * 64, "per%cent", 7])
def test_a_schema_that_cannot_be_is_refused(name: Any) -> None:
    with pytest.raises(procrastinate.InvalidOption, match="schema"):
        procrastinate.App(connector=procrastinate.Psycopg2Connector(schema=name))


def test_deferring_without_tables_says_what_to_do(procrastinate_dsn: str) -> None:
    with (
        open_app(procrastinate_dsn) as app,
        pytest.raises(errors.SchemaNotApplied, match="schema --apply") as caught,
    ):
        app.configure_task("task").defer()
    assert isinstance(caught.value.__cause__, psycopg2.Error)


def test_a_database_ahead_of_the_code_is_refused_unless_it_is_compatible(
    procrastinate_dsn: str, query: Callable[..., Any]
) -> None:
    with open_app(procrastinate_dsn) as app:
        app.schema_manager.apply_schema()
        latest = schema.latest_version()
        query("insert into procrastinate_migrations values (998, 'additive', %s)", latest)
        assert app.check_connection()
        query("insert into procrastinate_migrations values (999, 'breaking', 999)")
        for refused in (
            app.check_connection,
            app.schema_manager.apply_schema,
            app.schema_manager.migrate,
        ):
            with pytest.raises(errors.SchemaTooNew, match=r"version 999.*upgrade"):
                refused()


def test_what_is_wrong_with_a_schema() -> None:
    latest = schema.latest_version()

    assert problem_with(SchemaState(True, VERSIONS, 1)) is None
    assert isinstance(problem_with(SchemaState(False)), errors.SchemaNotApplied)
    assert isinstance(problem_with(SchemaState(True, (), 0)), errors.SchemaOutdated)
    assert isinstance(problem_with(SchemaState(True, VERSIONS, latest + 1)), errors.SchemaTooNew)


def test_a_role_without_rights_is_told_so(dsn: str, query: Callable[..., Any]) -> None:
    query("drop role if exists procrastinate_nobody")
    query("create role procrastinate_nobody login")
    try:
        with (
            open_app(dsn, user="procrastinate_nobody") as app,
            pytest.raises(errors.InsufficientPrivilege, match="grant"),
        ):
            app.configure_task("task").defer()
    finally:
        query("drop role procrastinate_nobody")


def test_the_owner_of_an_empty_schema_needs_no_right_on_the_database(
    procrastinate_dsn: str, query: Callable[..., Any]
) -> None:
    query("create role procrastinate_owner login")
    query("create schema theirs authorization procrastinate_owner")
    try:
        with open_app(procrastinate_dsn, user="procrastinate_owner", schema="theirs") as app:
            assert app.schema_manager.apply_schema() == MIGRATIONS
    finally:
        query("drop schema theirs cascade")
        query("drop role procrastinate_owner")


def test_other_languages_defer_by_a_function(sync_app: procrastinate.App, query: Any) -> None:
    ((job_id,),) = query("select procrastinate_defer_job('task', '{\"a\": 1}', priority => 4)")
    query("select procrastinate_defer_job('task', queueing_lock => 'q')")
    ((twin,),) = query("select procrastinate_defer_job('task', queueing_lock => 'q')")

    job = sync_app.job_manager.get_job(job_id)
    assert (job.task_name, job.task_kwargs, job.priority, job.queue) == (
        "task",
        {"a": 1},
        4,
        "default",
    )
    assert twin is None


def test_other_languages_defer_jobs_that_are_alike_by_a_function(
    sync_app: procrastinate.App, query: Any
) -> None:
    alike = "select procrastinate_defer_alike(%s, %s)"
    ((ids,),) = query(alike, '[{"a": 1}, {}]', '{"task_name": "task", "lock": "l"}')
    assert [
        (job.id, job.task_name, job.queue, job.priority, job.task_kwargs, job.lock)
        for job in sync_app.job_manager.list_jobs()
    ] == [(ids[0], "task", "default", 0, {"a": 1}, "l"), (ids[1], "task", "default", 0, {}, "l")]
    for all_args, common, constraint in (
        ('[{"a": 1}, null]', '{"task_name": "task"}', "args"),
        ('[{"a": 1}, []]', '{"task_name": "task"}', "args"),
        ('[{"a": 1}]', '{"task_name": ""}', "names"),
        ('[{"a": 1}]', "{}", "names"),
    ):
        with pytest.raises(
            psycopg2.errors.CheckViolation, match=f"procrastinate_jobs_{constraint}"
        ):
            query(alike, all_args, common)
    assert len(sync_app.job_manager.list_jobs()) == 2


def test_every_statement_casts_every_parameter() -> None:
    """Drivers that send parameters apart from the text need the types."""
    uncast = {
        statement.name: found
        for statement in load().values()
        if (found := re.findall(r"%\(\w+\)s(?!::)", statement.text))
    }
    assert uncast == {}


def test_a_schema_is_put_before_every_name() -> None:
    """All that stands without one is the names of channels, which belong to no schema."""
    for statement in load().values():
        bare = set(re.findall(r"(?<!\{schema\}\.)\bprocrastinate_\w+", statement.text))
        checks = {name for name in bare if name.endswith("_check")}  # named in their table
        channels = {f"procrastinate_{each}" for each in ("jobs", "schedule", "aborts", "ends_")}
        assert bare - checks <= channels
        for name in bare:
            assert f"'{name}'" in statement.text, statement.name


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "12000-01-01", "4000-01-01 BC"])
def test_a_time_that_no_driver_could_read_back_is_refused(
    sync_app: procrastinate.App, query: Callable[..., Any], moment: str
) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation, match="scheduled_at"):
        query("select procrastinate_defer_job('task', scheduled_at => %s)", moment)
    assert sync_app.job_manager.list_jobs() == []


MISFITS = {
    "names": [("queue_name", "''"), ("queue_name", "repeat('x', 129)"), ("task_name", "''")],
    "args": [("args", "'[]'"), ("args", "'1'")],
    "locks": [("lock", "repeat('x', 513)"), ("queueing_lock", "repeat('x', 513)")],
    "scheduled_at": [("scheduled_at", "'infinity'"), ("scheduled_at", "'-infinity'")],
    "hold": [("hold", "'lock'"), ("hold", "'schedule'")],
    "errors": [("errors", "'{}'")],
}


@pytest.mark.parametrize("name", MISFITS)
def test_the_one_check_says_which_of_six_rules_is_violated(
    sync_app: procrastinate.App, query: Callable[..., Any], name: str
) -> None:
    job_id = sync_app.configure_task("t", lock="l").defer()
    query("set search_path = pg_temp, public")
    for column, value in MISFITS[name]:
        lock = ", lock = null" if value == "'lock'" else ""
        with pytest.raises(psycopg2.errors.CheckViolation) as caught:
            query(f"update procrastinate_jobs set {column} = {value}{lock} where id = {job_id}")
        assert caught.value.diag.constraint_name == f"procrastinate_jobs_{name}_check"


def test_the_one_check_asks_nothing_more_of_a_job_that_has_succeeded(
    sync_app: procrastinate.App, query: Callable[..., Any]
) -> None:
    """A worker has read it, and has run it. To be tried again by hand, it has to fit."""
    job_id = sync_app.configure_task("t").defer()
    bad = f"update procrastinate_jobs set queue_name = '', status = %s where id = {job_id}"
    for status in Status:
        if status is Status.SUCCEEDED:
            query(bad, status.value)
            continue
        with pytest.raises(psycopg2.errors.CheckViolation, match="names_check"):
            query(bad, status.value)
    with pytest.raises(psycopg2.errors.CheckViolation, match="names_check"):
        query(f"update procrastinate_jobs set status = 'todo' where id = {job_id}")


def test_the_one_check_lets_pass_what_is_at_the_limits(
    sync_app: procrastinate.App, query: Callable[..., Any]
) -> None:
    job_id = sync_app.configure_task("t").defer()
    query(
        "update procrastinate_jobs set queue_name = repeat('é', 128), task_name = 'x',"
        " lock = repeat('é', 512), queueing_lock = repeat('é', 512), hold = 'schedule',"
        " scheduled_at = '9999-12-29 00:00+00', errors = '[]', args = '{}'"
        f" where id = {job_id}"
    )
    query(f"update procrastinate_jobs set scheduled_at = '0001-01-03 00:00+00' where id = {job_id}")


def test_other_languages_keep_something_with_a_job(
    sync_app: procrastinate.App, query: Callable[..., Any]
) -> None:
    query("""select procrastinate_defer_job('t', meta => '{"n": 1}')""")
    query("""select procrastinate_defer_job_with_key('t', 'key', meta => '{"n": 2}')""")
    query(
        """select procrastinate_defer_jobs('[{"task_name": "t", "meta": {"n": 3}},"""
        """ {"task_name": "t"}]', '{"meta": {"n": 4}}')"""
    )
    query(
        """select procrastinate_defer_jobs('[{"task_name": "t", "meta": {"n": 5}},"""
        """ {"task_name": "t", "queueing_lock": "q"}]')"""
    )
    query(
        """select procrastinate_defer_alike('[{}, {}]', '{"task_name": "t", "meta": {"n": 6}}')"""
    )
    counted = query(
        "select (meta ->> 'n')::integer, count(*) from procrastinate_jobs group by 1 order by 1"
    )
    assert counted == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 2), (None, 1)]
