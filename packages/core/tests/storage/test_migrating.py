"""Migrations while everybody works on: what they lock, what they refuse, how they go on."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import older_schemas
import psycopg2
import pytest

import procrastinate
from procrastinate import errors
from procrastinate.model.partitions import MANY
from procrastinate.storage import migrating, schema
from procrastinate.storage.partitioning import into_partitions
from procrastinate.storage.statements import Statements

Query = Callable[..., list[tuple[Any, ...]]]
LATEST = schema.latest_version()
TITLES = [each.title for each in schema.migrations()]
CHECKS = 6  # the version whose migration adds checks
INDEXES = 7  # the version whose migration makes indexes
AT_ONCE = [each for each in schema.migrations() if not each.outside]
SINCE_LOCKS_ARE_SHORT = 4


@pytest.fixture
def app(procrastinate_dsn: str) -> Iterator[procrastinate.App]:
    connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
    with procrastinate.App(connector=connector).open() as app:
        yield app


def versions(query: Query) -> list[int]:
    return [row[0] for row in query("select version from procrastinate_migrations order by 1")]


# --- Locks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "migration", [each for each in AT_ONCE if each.version >= SINCE_LOCKS_ARE_SHORT]
)
def test_what_a_migration_does_under_its_locks_reads_no_table_of_jobs(
    query: Query, procrastinate_dsn: str, migration: schema.Migration
) -> None:
    """The server tells which tables it rewrites or verifies, and which indexes it builds."""
    older_schemas.make(migration.version - 1, query)
    connection = psycopg2.connect(procrastinate_dsn, options="-c client_min_messages=debug1")
    with connection, connection.cursor() as cursor:
        cursor.execute(Statements().render(migration.text))
    told = [
        notice.strip()
        for notice in connection.notices
        if re.search(r"rewriting|verifying|building index .* on table .procrastinate_jobs", notice)
    ]
    connection.close()
    assert told == []


def test_such_a_reading_is_noticed(query: Query, procrastinate_dsn: str) -> None:
    older_schemas.make(4, query)
    connection = psycopg2.connect(procrastinate_dsn, options="-c client_min_messages=debug1")
    with connection, connection.cursor() as cursor:
        cursor.execute("alter table procrastinate_jobs alter column queue_name type text")
    assert any("building index" in notice for notice in connection.notices)
    connection.close()


@pytest.mark.parametrize(
    "migration", [each for each in AT_ONCE if each.version >= SINCE_LOCKS_ARE_SHORT]
)
def test_a_migration_has_a_limit_for_each_lock_before_it_changes_a_table(
    migration: schema.Migration,
) -> None:
    before_changes, _, _ = migration.text.partition("alter table {schema}.procrastinate_jobs")
    limits = re.findall(r"^set local lock_timeout = '(\w+)';$", before_changes, re.MULTILINE)
    assert limits == ["10s", "300ms"]


def test_a_migration_that_does_not_get_its_lock_tries_again_and_then_says_who_has_it(
    app: procrastinate.App,
    query: Query,
    procrastinate_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older_schemas.make(CHECKS - 1, query)
    monkeypatch.setattr(migrating, "TRIES", 2)
    monkeypatch.setattr(migrating, "PAUSE", 0)
    holder = psycopg2.connect(procrastinate_dsn)
    with holder.cursor() as cursor:
        cursor.execute("insert into procrastinate_jobs (task_name, queue_name) values ('t', 'q')")
    with pytest.raises(
        errors.SchemaOutdated, match=rf"in 2 tries.*pid {holder.get_backend_pid()} for"
    ):
        app.schema_manager.migrate()
    assert versions(query) == list(range(1, CHECKS))
    holder.commit()
    holder.close()
    assert app.schema_manager.migrate() == TITLES[CHECKS - 1 :]


def test_several_migrate_at_once_and_one_does_it(procrastinate_dsn: str, query: Query) -> None:
    older_schemas.make(3, query)
    done: list[Any] = []

    def migrate() -> None:
        connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
        with procrastinate.App(connector=connector).open() as app:
            done.append(app.schema_manager.migrate())

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == [[], [], [], TITLES[3:]]


async def test_migrating_asynchronously_is_the_same(procrastinate_dsn: str, query: Query) -> None:
    older_schemas.make(4, query)
    connector = procrastinate.AiopgConnector(dsn=procrastinate_dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        assert await app.schema_manager.migrate_async() == TITLES[4:]
        assert await app.schema_manager.apply_schema_async() == []
        assert (await app.schema_manager.check_async()).versions[-1] == LATEST


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_the_role_s_isolation_does_not_matter(
    procrastinate_dsn: str, query: Query, level: str
) -> None:
    """Neither to the one who migrates nor, as a snapshot that is kept, to CONCURRENTLY."""
    older_schemas.make(3, query)
    options = f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')}"
    connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn, options=options)
    with procrastinate.App(connector=connector).open() as app:
        assert app.schema_manager.migrate() == TITLES[3:]
        app.schema_manager.check()


def test_what_a_migration_does_not_find_is_said_in_the_server_s_words(
    app: procrastinate.App, query: Query
) -> None:
    older_schemas.make(3, query)
    query("alter table procrastinate_jobs drop column attempts_forgiven")
    with pytest.raises(errors.SchemaError, match=r"0004_leases cannot be run.*attempts_forgiven"):
        app.schema_manager.migrate()


# --- What was interrupted -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [each.version for each in schema.migrations() if each.outside])
def test_what_runs_outside_of_a_transaction_may_be_interrupted_after_each_statement(
    app: procrastinate.App, query: Query, version: int
) -> None:
    migration = schema.migrations()[version - 1]
    older_schemas.make(version - 1, query)
    for statement in migrating.statements_of(migration):
        query(Statements().render(statement))
        query(
            "update pg_index set indisvalid = false where indexrelid = any(array("
            " select oid from pg_class where relname in ("
            " 'procrastinate_jobs_ready_bridge_idx', 'procrastinate_jobs_unknown_idx')"
            " and strpos(%s, relname) > 0))",
            migration.text,
        )
    assert app.schema_manager.migrate() == TITLES[version - 1 :]
    app.schema_manager.check()
    assert query("select count(*) from pg_index where not indisvalid") == [(0,)]


def test_indexes_that_others_have_left_unfinished_are_not_ours(
    app: procrastinate.App, query: Query
) -> None:
    older_schemas.make(4, query)
    query("create index theirs on procrastinate_jobs (task_name)")
    query("update pg_index set indisvalid = false where indexrelid = 'theirs'::regclass")
    app.schema_manager.migrate()
    assert query("select to_regclass('theirs') is not null") == [(True,)]


@pytest.mark.parametrize("version", range(1, INDEXES))
@pytest.mark.parametrize("name", ["ready", "line", "ready_bridge", "line_bridge", "unknown"])
def test_an_index_that_is_missing_is_made(
    app: procrastinate.App, query: Query, version: int, name: str
) -> None:
    older_schemas.make(version, query)
    query(f"drop index if exists procrastinate_jobs_{name}_idx")
    app.schema_manager.migrate()
    app.schema_manager.check()


@pytest.mark.parametrize("version", range(1, LATEST + 1))
def test_tables_without_records_are_known_by_their_looks(
    app: procrastinate.App, query: Query, version: int
) -> None:
    """As those that were made from `schema --read` before it wrote any."""
    older_schemas.make(version, query)
    query("delete from procrastinate_migrations")
    with pytest.raises(errors.SchemaOutdated, match="schema --migrate"):
        app.schema_manager.check()
    assert app.schema_manager.migrate()[0] == "records"
    assert app.schema_manager.check().versions == tuple(range(1, LATEST + 1))


@pytest.mark.parametrize("version", range(1, LATEST))
def test_a_missing_record_is_written_and_nothing_is_run(
    app: procrastinate.App, query: Query, version: int
) -> None:
    app.schema_manager.apply_schema()
    query("delete from procrastinate_migrations where version = %s", version)
    assert app.schema_manager.migrate() == ["records"]
    assert app.schema_manager.migrate() == []
    assert versions(query) == list(range(1, LATEST + 1))
    assert query("select count(*) from pg_indexes where indexname like '%%bridge%%'") == [(0,)]


# --- What is handed over --------------------------------------------------------------------------


@pytest.mark.one_partition("these make the partitions themselves")
def test_many_partitions_are_migrated_as_one_is(app: procrastinate.App, query: Query) -> None:
    app.schema_manager.apply_schema()
    app._gateway.run(into_partitions(), transaction=True)
    ids = [app.configure_task("t", lock=f"l{n}").defer() for n in range(20)]
    older_schemas.undo_9(query)
    assert app.schema_manager.migrate() == TITLES[8:]
    assert len(app.schema_manager.check().partitions.values) == MANY
    assert [job.id for job in app.job_manager.list_jobs()] == ids
    app.configure_task("t", lock="l").defer()


def test_an_interrupted_migration_has_changed_nothing(
    app: procrastinate.App, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statements are sent one by one, and the connection is lost after any of them."""
    older_schemas.make(8, query)
    statements = migrating.statements_of(schema.migrations()[8])
    assert len(statements) > 15
    lost = "select pg_terminate_backend(pg_backend_pid())"
    for last in range(len(statements)):
        broken = [*statements[: last + 1], lost]
        monkeypatch.setattr(migrating, "statements_of", lambda _, broken=broken: broken)
        with pytest.raises(errors.ConnectorException):
            app.schema_manager.migrate()
        assert query("select to_regclass('procrastinate_waits')") == [(None,)]
        assert versions(query) == list(range(1, 9))
    monkeypatch.undo()
    assert app.schema_manager.migrate() == TITLES[8:]
    app.schema_manager.check()


@pytest.fixture
def role(query: Query) -> Iterator[str]:
    name = f"shop_{uuid.uuid4().hex[:12]}"
    query(f"create role {name}")
    yield name
    query(f"drop owned by {name}; drop role {name}")


OLD_FUNCTION = """
    drop function procrastinate_defer_job;
    create function procrastinate_defer_job(
        text, jsonb, text, integer, text, text, timestamptz, regclass default null
    ) returns bigint language sql as 'select 0::bigint';
    revoke all on function procrastinate_defer_job from public
"""


def test_who_might_defer_may_defer_and_no_more(
    app: procrastinate.App, query: Query, role: str
) -> None:
    older_schemas.make(8, query)
    query(OLD_FUNCTION)
    query(f"grant execute on function procrastinate_defer_job to {role}")
    app.schema_manager.migrate()
    assert query(
        "select has_function_privilege(%s, oid, 'execute'), pronargs from pg_proc"
        " where proname = 'procrastinate_defer_job'",
        role,
    ) == [(True, 9)]
    assert _rights(query, role) == set()


def test_who_might_work_may_write_the_new_tables(
    app: procrastinate.App, query: Query, role: str
) -> None:
    older_schemas.make(8, query)
    query(f"grant select, update on procrastinate_jobs to {role}")
    app.schema_manager.migrate()
    tables = ("waits", "progress", "queues", "minutes")
    assert _rights(query, role) == {
        (f"procrastinate_{table}", right) for table in tables for right in ("SELECT", "UPDATE")
    } | {("procrastinate_jobs", "SELECT"), ("procrastinate_jobs", "UPDATE")}


def _rights(query: Query, role: str) -> set[tuple[str, str]]:
    rows = query(
        "select table_name::text, privilege_type::text from information_schema.table_privileges"
        " where grantee = %s",
        role,
    )
    return set(rows)


def test_statements_are_told_apart_and_functions_kept_whole() -> None:
    text = "-- a;\nselect 1;\n\ndo $a$\nbegin;\n$b$;\nend;\n$a$;\nselect '$$x;\ny$$';\nselect 2;\n"
    migration = schema.Migration(99, "it", 1, text)
    assert migrating.statements_of(migration) == [
        "select 1",
        "do $a$\nbegin;\n$b$;\nend;\n$a$",
        "select '$$x;\ny$$'",
        "select 2",
    ]


# --- Rows that do not fit -------------------------------------------------------------------------

MISFITS = {
    "procrastinate_jobs_names_check": "queue_name, task_name) values ('', 'task'",
    "procrastinate_jobs_locks_check": "queue_name, task_name, lock, hold, scheduled_at) values"
    " ('q', 'task', repeat('x', 513), 'schedule', now()",
    "procrastinate_jobs_hold_check": "queue_name, task_name, hold) values ('q', 'task', 'schedule'",
    "procrastinate_jobs_errors_check": "queue_name, task_name, errors) values ('q', 'task', '{}'",
}


def test_every_check_of_jobs_that_a_migration_adds_has_a_misfit_here() -> None:
    added = {
        name
        for migration in schema.migrations()
        for table, checks in migrating.added_checks(migration)
        for name, _ in checks
        if table == "procrastinate_jobs"
    }
    assert added == MISFITS.keys()


@pytest.mark.parametrize("name", MISFITS)
def test_rows_that_do_not_fit_are_named_and_nothing_is_changed(
    app: procrastinate.App, query: Query, name: str
) -> None:
    older_schemas.make(CHECKS - 1, query)
    query("alter table procrastinate_jobs drop constraint procrastinate_jobs_names_check")
    query(
        "alter table procrastinate_jobs add constraint procrastinate_jobs_names_check check (true)"
    )
    query("insert into procrastinate_jobs (queue_name, task_name) values ('q', 'fits')")
    for _ in range(12):
        query(f"insert into procrastinate_jobs ({MISFITS[name]})")
    with pytest.raises(errors.SchemaOutdated, match="is not run") as caught:
        app.schema_manager.migrate()
    assert (
        f"{name}: 12 of procrastinate_jobs (10, 11, 12, 13, 2, 3, 4, 5, 6, 7, ...). Correct"
        in str(caught.value)
    )
    assert versions(query) == list(range(1, CHECKS))
    query("delete from procrastinate_jobs where task_name <> 'fits'")
    app.schema_manager.migrate()
    app.schema_manager.check()


def test_a_row_that_came_before_the_checks_and_after_the_look_is_named(
    app: procrastinate.App, query: Query
) -> None:
    older_schemas.make(CHECKS - 1, query)
    query("insert into procrastinate_jobs (queue_name, task_name, errors) values ('q', 't', '3')")
    migration = schema.migrations()[CHECKS - 1]
    query(Statements().render(migration.text))
    query("insert into procrastinate_migrations values (%s, 'checks', 1)", CHECKS)
    with pytest.raises(errors.SchemaOutdated, match=r"errors_check: 1 of procrastinate_jobs \(1\)"):
        app.schema_manager.migrate()
    assert versions(query) == list(range(1, CHECKS + 1))


def test_a_row_that_no_check_has_kept_out_is_named_before_the_new_one_is_validated(
    app: procrastinate.App, query: Query
) -> None:
    """Somebody had dropped a check of the six."""
    older_schemas.make(8, query)
    query("alter table procrastinate_jobs drop constraint procrastinate_jobs_errors_check")
    query("insert into procrastinate_jobs (queue_name, task_name, errors) values ('q', 't', '3')")
    with pytest.raises(errors.SchemaOutdated, match=r"errors_check: 1 of procrastinate_jobs \(1\)"):
        app.schema_manager.migrate()
    assert versions(query) == list(range(1, 10))
    query("delete from procrastinate_jobs")
    assert app.schema_manager.migrate() == TITLES[9:]
    app.schema_manager.check()


def test_rows_of_other_tables_are_named_by_their_keys(app: procrastinate.App, query: Query) -> None:
    older_schemas.make(CHECKS - 1, query)
    query("insert into procrastinate_periodic values ('nightly', 'eu', 0, 'infinity')")
    query("insert into procrastinate_workers (name, last_heartbeat) values ('w', '-infinity')")
    with pytest.raises(errors.SchemaOutdated) as caught:
        app.schema_manager.migrate()
    assert "periodic_times_check: 1 of procrastinate_periodic (nightly eu)" in str(caught.value)
    assert "workers_times_check: 1 of procrastinate_workers (1)" in str(caught.value)
