"""A schema says what is wrong with it to every command, and no job is inserted elsewhere."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import older_schemas
import psycopg2
import pytest

import procrastinate
from procrastinate import errors
from procrastinate.drive import Script
from procrastinate.storage import schema
from procrastinate.storage.defer import PARTITION_CHECK
from procrastinate.storage.nodes import coordinator_elsewhere
from procrastinate.storage.partitioning import into_partitions
from procrastinate.storage.schema_parts import is_vital, parts

Query = Callable[..., list[tuple[Any, ...]]]


def app_of(dsn: str, **options: Any) -> procrastinate.App:
    connector = procrastinate.Psycopg2Connector(dsn=dsn, **options)
    return procrastinate.App(connector=connector)


@pytest.fixture
def by_path(procrastinate_dsn: str) -> Iterator[Callable[[str], procrastinate.App]]:
    """Open an app that finds its tables by this search_path."""
    opened: list[procrastinate.App] = []

    def opener(path: str) -> procrastinate.App:
        app = app_of(procrastinate_dsn, options=f"-c search_path={path}")
        app.open()
        opened.append(app)
        return app

    yield opener
    for app in opened:
        app.close()


# --- Tables of releases up to 3.x -----------------------------------------------------------------

WAYS: dict[str, Callable[[procrastinate.App], Any]] = {
    "apply": lambda app: app.schema_manager.apply_schema(),
    "migrate": lambda app: app.schema_manager.migrate(),
    "check": lambda app: app.schema_manager.check(),
    "check_connection": lambda app: app.check_connection(),
    "defer": lambda app: app.configure_task("task").defer(),
    "batch": lambda app: app.configure_task("task").batch_defer({}, {}),
    "list": lambda app: app.job_manager.list_jobs(),
    "cancel": lambda app: app.job_manager.cancel_job_by_id(1),
}
WHAT_TO_DO = r"procrastinate 3\.x or older.*schema of its own.*schema --apply"


@pytest.mark.parametrize("way", WAYS)
def test_tables_of_an_old_release_are_recognised_by_everything(
    procrastinate_dsn: str, query: Query, way: str
) -> None:
    query(older_schemas.RELEASE_3)
    query("insert into procrastinate_jobs (queue_name, task_name) values ('q', 'theirs')")
    with (
        app_of(procrastinate_dsn).open() as app,
        pytest.raises(errors.SchemaForeign, match=WHAT_TO_DO),
    ):
        WAYS[way](app)
    assert query("select task_name from procrastinate_jobs") == [("theirs",)]


async def test_tables_of_an_old_release_are_recognised_by_a_worker_and_asynchronously(
    procrastinate_dsn: str, query: Query
) -> None:
    query(older_schemas.RELEASE_3)
    connector = procrastinate.AiopgConnector(dsn=procrastinate_dsn)
    async with procrastinate.App(connector=connector).open_async() as app:
        with pytest.raises(errors.SchemaForeign, match=WHAT_TO_DO):
            await app.run_worker_async(install_signal_handlers=False)
        with pytest.raises(errors.SchemaForeign, match=WHAT_TO_DO):
            await app.configure_task("task").defer_async()
        with pytest.raises(errors.SchemaForeign, match=WHAT_TO_DO):
            await app.schema_manager.apply_schema_async()


def test_a_schema_of_its_own_beside_an_old_release_works(
    procrastinate_dsn: str, query: Query
) -> None:
    query(older_schemas.RELEASE_3)
    with app_of(procrastinate_dsn, schema="queue").open() as app:
        app.schema_manager.apply_schema()
        assert app.configure_task("task").defer() == 1
    assert query("select count(*) from public.procrastinate_jobs") == [(0,)]


# --- A node of a cluster --------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["c.example:5432", ""])
def test_a_node_of_a_cluster_is_named_whatever_it_lacks(
    dsn: str, query: Query, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    """Nodes lack the functions of the tables. Tables that are whole are not asked about."""

    def is_node() -> Any:
        yield Script("the coordinator", "select 1")
        return known

    monkeypatch.setattr(schema, "coordinator_elsewhere", is_node)
    told = (
        f"coordinator, which this node knows as {known}" if known else "the cluster's coordinator$"
    )
    with app_of(dsn).open() as app:
        app.schema_manager.check()
        query("drop function procrastinate_defer_job")
        for way in ("apply", "migrate", "check", "check_connection", "defer"):
            with pytest.raises(errors.SchemaError, match=told):
                WAYS[way](app)
    with app_of(dsn, schema="other").open() as app:
        for way in ("apply", "migrate", "check"):
            with pytest.raises(errors.SchemaError, match=told):
                WAYS[way](app)
    assert query("select to_regnamespace('other')") == [(None,)]


def test_a_server_is_asked_for_a_coordinator_only_if_it_has_citus() -> None:
    def answered(*answers: list[Any]) -> tuple[str | None, int]:
        flow = coordinator_elsewhere()
        next(flow)
        for count, rows in enumerate(answers, 1):
            try:
                flow.send(rows)
            except StopIteration as end:
                return end.value, count
        raise AssertionError("it asks for more")

    assert answered([(0,)]) == (None, 1)
    assert answered([(1,)], []) == (None, 2)
    assert answered([(1,)], [("c:5432",)]) == ("c:5432", 2)
    assert answered([(1,)], [("",)]) == ("", 2)


# --- In several schemas, or not whole -------------------------------------------------------------


def test_tables_and_records_in_different_schemas_are_found(
    by_path: Callable[[str], procrastinate.App], query: Query
) -> None:
    query("create schema queue")
    by_path("queue").schema_manager.apply_schema()
    query("create table public.procrastinate_jobs (like queue.procrastinate_jobs)")
    app = by_path("public,queue")
    with pytest.raises(errors.SchemaError, match=r"several schemas \(in public: .*; in queue: "):
        app.schema_manager.check()
    with pytest.raises(errors.SchemaError, match="several schemas"):
        app.schema_manager.migrate()


def test_old_tables_that_come_first_on_the_search_path_are_found(
    by_path: Callable[[str], procrastinate.App], query: Query
) -> None:
    query("create schema queue")
    by_path("queue").schema_manager.apply_schema()
    query(older_schemas.RELEASE_3)
    with pytest.raises(
        errors.SchemaForeign, match=r"in the schema public is of procrastinate 3\.x"
    ):
        by_path("public,queue").schema_manager.check()
    assert by_path("queue,public").schema_manager.check().exists


@pytest.mark.one_partition("its sequence has another name there: see test_partitioning.py")
@pytest.mark.parametrize("name", [*schema.TABLES, *schema.SEQUENCES])
def test_a_missing_table_is_found(sync_app: procrastinate.App, query: Query, name: str) -> None:
    kind = "sequence" if name in schema.SEQUENCES else "table"
    query(f"drop {kind} {name} cascade")
    for look in (sync_app.schema_manager.check, sync_app.schema_manager.migrate):
        with pytest.raises(errors.SchemaError, match=rf"there is no .*{name}.*schema --read"):
            look()


@pytest.mark.one_partition("a cluster does not move tables")
def test_tables_that_were_moved_are_found_where_they_are(
    sync_app: procrastinate.App, query: Query
) -> None:
    """And not in a schema that has a whole set of tables."""
    query("create schema attic; create schema aaa")
    query("create table aaa.procrastinate_periodic (); create table aaa.procrastinate_workers ()")
    for name in ("procrastinate_periodic", "procrastinate_jobs"):
        query(f"alter table {name} set schema attic")
        with pytest.raises(errors.SchemaError, match=f"there is no .*{name}") as caught:
            sync_app.schema_manager.check()
        statement = f'alter table "attic".{name} set schema "public"'
        assert re.findall(r"`(.*?)`", str(caught.value)) == [statement]
        query(statement)
        sync_app.schema_manager.check()


def test_where_no_table_is_found_another_schema_that_has_them_is_named(
    by_path: Callable[[str], procrastinate.App], query: Query
) -> None:
    query("create schema queue; create schema other")
    by_path("queue").schema_manager.apply_schema()
    with pytest.raises(errors.SchemaNotApplied, match='name it by `schema="queue"`'):
        by_path("other").schema_manager.check()


def test_applying_where_no_schema_of_the_path_exists_says_so(
    by_path: Callable[[str], procrastinate.App],
) -> None:
    with pytest.raises(
        errors.SchemaError, match=r"schemas on the search_path \(nowhere\)"
    ) as caught:
        by_path("nowhere").schema_manager.apply_schema()
    assert "--apply" not in str(caught.value)


#: How to take from a table what is no thing of its own.
TRAITS = {
    "not": "alter {column} drop not null",
    "logging": "set unlogged",
    "visible": "enable row level security",
}
#: Columns of primary keys: these cannot be null.
KEYS = [
    f"not null of {each.split('.')[1].split()[0]}.{column}"
    for part, each in parts().items()
    if part.endswith("_pkey")
    for column in each.rpartition("(")[2].rstrip(")").split(", ")
]


def drop_of(part: str) -> str:
    sort, _, name = part.removeprefix("unique ").partition(" ")
    if sort == "index":
        return f"drop index {name}"
    if sort == "constraint":
        table = re.match(r"procrastinate_[a-z]+", name)
        assert table is not None
        return f"alter table {table[0]} drop constraint {name} cascade"
    if sort in TRAITS:
        table_name, _, column = name.rpartition(" ")[2].partition(".")
        return f"alter table {table_name} {TRAITS[sort].format(column=column)}"
    table_name, _, column = name.removeprefix("of ").partition(".")
    if sort == "default":
        return f"alter table {table_name} alter {column} drop default"
    return f"alter table {table_name} drop {column} cascade"


def test_a_statement_that_makes_a_part_holds_no_comment() -> None:
    assert [each for each in parts().values() if "--" in each] == []


@pytest.mark.one_partition("schema.sql does not name the check of partitions")
def test_all_parts_of_the_schema_are_known(sync_app: procrastinate.App, query: Query) -> None:
    """The text says as much as the catalog, but for what PostgreSQL makes by itself."""
    ((columns, not_null, defaults, indexes),) = query(
        "select count(*), count(*) filter (where attnotnull),"
        " (select count(*) from pg_attrdef), (select count(*) from pg_indexes"
        " where schemaname = 'public' and indexname not like '%_pkey')"
        " from pg_attribute join pg_class on pg_class.oid = attrelid"
        " where relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0"
    )
    counted = Counter(part.split()[0] for part in parts())
    assert (counted["not"], counted["visible"]) == (not_null, len(schema.TABLES))
    assert (counted["column"], counted["default"], counted["index"] + counted["unique"]) == (
        columns,
        defaults,
        indexes,
    )
    assert counted["constraint"] == len(
        query(
            "select 1 from pg_constraint where contype in ('c', 'p')"
            " and conrelid <> 0 and connamespace = 'public'::regnamespace"
        )
    )


#: What has the name of one of our parts, and is another thing.
OTHERS = {
    "unique index procrastinate_jobs_queueing_lock_key": "drop index"
    " procrastinate_jobs_queueing_lock_key; create index procrastinate_jobs_queueing_lock_key"
    " on procrastinate_jobs (queueing_lock, partition)"
    " where queueing_lock is not null and status = 'todo'",
    "constraint procrastinate_jobs_row_check": "alter table procrastinate_jobs"
    " drop constraint procrastinate_jobs_row_check, add constraint procrastinate_jobs_row_check"
    " check (procrastinate_job_fits(queue_name, task_name, args, lock, queueing_lock, scheduled_at,"
    " hold::text, errors)) not valid",
}


@pytest.mark.parametrize("part", OTHERS)
def test_a_part_that_is_another_thing_of_its_name_is_missing(
    sync_app: procrastinate.App, query: Query, part: str
) -> None:
    for each in OTHERS[part].split(";"):  # a coordinator sends each statement on
        query(each)
    with pytest.raises(errors.SchemaError, match=f"lack the {part}: .*drop what has its name"):
        sync_app.schema_manager.check()


def said_of(part: str) -> str:
    table = part.rpartition(" ")[2]
    if part.startswith("logging"):
        return f"{table} is unlogged: a crash of the server would empty it"
    if part.startswith("visible"):
        return f"{table} has row level security and no policy: roles other than its owner see no"
    return f"lack the {part}"


#: What a database with many partitions has instead, or beside the rest.
OF_MANY = (
    *("default of procrastinate_jobs.id", "default of procrastinate_jobs.partition"),
    f"constraint {PARTITION_CHECK}",
)


@pytest.mark.one_partition("tests there have another default of a partition")
@pytest.mark.parametrize("part", OF_MANY)
def test_a_missing_part_of_many_partitions_is_made_as_they_have_it(
    sync_app: procrastinate.App, query: Query, part: str
) -> None:
    def definitions() -> list[tuple[Any, ...]]:
        return query(
            "select pg_get_expr(adbin, adrelid) from pg_attrdef"
            " where adrelid = 'procrastinate_jobs'::regclass"
            " union all select pg_get_constraintdef(oid) from pg_constraint"
            " where conrelid = 'procrastinate_jobs'::regclass order by 1"
        )

    sync_app._gateway.run(into_partitions(), transaction=True)
    before = definitions()
    query(drop_of(part))
    with pytest.raises(errors.SchemaError, match=f"lack the {part}: ") as caught:
        sync_app.schema_manager.check()
    (statement,) = re.findall(r"run `(.*?)`", str(caught.value))
    query(statement)
    sync_app.schema_manager.check()
    assert definitions() == before


@pytest.mark.parametrize(
    "part",
    [
        *(
            "index procrastinate_jobs_ready_idx",
            "unique index procrastinate_jobs_queueing_lock_key",
        ),
        *("constraint procrastinate_workers_pkey", "constraint procrastinate_jobs_row_check"),
        "constraint procrastinate_jobs_pkey",
        *("column procrastinate_jobs.meta", "default of procrastinate_jobs.status"),
        *("not null of procrastinate_jobs.queue_name", "logging of procrastinate_jobs"),
        "visible rows of procrastinate_locks",
    ],
)
def test_a_missing_part_is_told_with_the_statement_that_makes_it(
    sync_app: procrastinate.App, query: Query, part: str
) -> None:
    query(drop_of(part))
    with pytest.raises(errors.SchemaError, match=re.escape(said_of(part))) as caught:
        sync_app.schema_manager.check()
    if is_vital(part):
        with pytest.raises(errors.SchemaError, match=re.escape(said_of(part))):
            sync_app.check_connection()
    else:
        assert sync_app.check_connection()
    (statement,) = re.findall(r"run `(.*?)`", str(caught.value))
    query(statement)
    sync_app.schema_manager.check()


def test_the_statements_of_many_missing_parts_are_in_the_script(
    sync_app: procrastinate.App, query: Query
) -> None:
    for name in ("meta", "result", "bounces", "result_error"):
        query(drop_of(f"column procrastinate_jobs.{name}"))
    with pytest.raises(errors.SchemaError, match="make each by its part of the script"):
        sync_app.schema_manager.check()


def test_row_level_security_with_a_policy_is_the_owners_choice(
    sync_app: procrastinate.App, query: Query
) -> None:
    query("alter table procrastinate_jobs enable row level security")
    query("create policy theirs on procrastinate_jobs using (true)")
    sync_app.schema_manager.check()


#: Without these columns something else is missing as well, which is said.
TELLING = (
    *("column procrastinate_jobs.id", "column procrastinate_jobs.partition"),
    *("column procrastinate_workers.id", "column procrastinate_migrations.version"),
    "column procrastinate_migrations.compatible_from",
    *("column procrastinate_settings.partitions", "column procrastinate_settings.boundary_id"),
)


@pytest.mark.slow
@pytest.mark.parametrize("part", [each for each in parts() if each not in KEYS])
def test_a_missing_part_is_found_by_every_look(
    sync_app: procrastinate.App, query: Query, part: str
) -> None:
    query(drop_of(part))
    for look in (sync_app.schema_manager.check, sync_app.schema_manager.migrate):
        said = "procrastinate|column" if part in TELLING else re.escape(said_of(part))
        with pytest.raises(errors.SchemaError, match=said):
            look()


@pytest.mark.parametrize(
    "part", ["index procrastinate_jobs_ready_idx", "constraint procrastinate_jobs_row_check"]
)
async def test_a_worker_goes_on_without_what_makes_it_fast_or_rows_safe(
    app: procrastinate.App, query: Query, part: str
) -> None:
    query(drop_of(part))
    ran = []

    @app.task(name="task")
    async def task() -> None:
        ran.append(1)

    await task.defer_async()
    assert await app.check_connection_async()
    await app.run_worker_async(wait=False, install_signal_handlers=False)
    assert ran == [1]
    with pytest.raises(errors.SchemaError, match=part):
        await app.schema_manager.check_async()


# --- Settings -------------------------------------------------------------------------------------


@pytest.mark.one_partition("the settings of a distributed database are not made up")
def test_a_schema_that_was_restored_without_its_data_is_told_what_to_do(
    sync_app: procrastinate.App, query: Query
) -> None:
    """Nothing is left but tables and functions, as after `pg_dump --schema-only`."""
    query("truncate procrastinate_settings, procrastinate_migrations")
    for way in ("check", "check_connection", "list", "cancel"):
        with pytest.raises(errors.SchemaError, match=r"procrastinate schema --(migrate|check)"):
            WAYS[way](sync_app)
    assert sync_app.schema_manager.migrate() == ["records", "settings"]
    assert sync_app.schema_manager.migrate() == []
    assert query("select partitions, boundary_id from procrastinate_settings") == [(1, 0)]
    assert sync_app.configure_task("task").defer() > 0
    assert len(sync_app.job_manager.list_jobs()) == 1


@pytest.mark.one_partition("the settings of a distributed database are not made up")
def test_settings_that_no_migration_can_know_are_not_made_up(
    sync_app: procrastinate.App, query: Query
) -> None:
    query("alter sequence procrastinate_jobs_id_seq rename to procrastinate_jobs_number_seq")
    query("truncate procrastinate_settings")
    with pytest.raises(errors.SchemaError, match=r"has no rows.*restore it from a backup"):
        sync_app.schema_manager.migrate()
    query("insert into procrastinate_settings values (1, 0)")
    with pytest.raises(errors.SchemaError, match=r"says 1 as .* set partitions = 64"):
        sync_app.schema_manager.check()
    query("alter sequence procrastinate_jobs_number_seq rename to procrastinate_jobs_id_seq")
    query("update procrastinate_settings set partitions = 64")
    for look in (sync_app.schema_manager.check, sync_app.check_connection):
        with pytest.raises(errors.SchemaError, match=r"says 64 as .* with 1: .* where B is 0"):
            look()
    query("drop index procrastinate_settings_one_row_idx")
    query("insert into procrastinate_settings values (64, 7)")
    for way in ("check", "migrate", "list"):
        with pytest.raises(errors.SchemaError, match="has 2 rows instead of one"):
            WAYS[way](sync_app)


# --- Functions ------------------------------------------------------------------------------------

CHANGES = [
    "create or replace function {f} returns bigint language sql as 'select 7::bigint'",
    "alter function {f} security invoker",
    "alter function {f} set search_path = public",
    "alter function {f} strict",
    "alter function {f} stable",
    "drop function {f}",
]
DEFER_JOB = (
    "procrastinate_defer_job(text, jsonb, text, integer, text, text, timestamptz, regclass, jsonb)"
)


@pytest.mark.parametrize("change", CHANGES[1:])
def test_a_function_that_is_not_that_of_this_code_is_found_and_made_anew(
    sync_app: procrastinate.App, query: Query, change: str
) -> None:
    query(change.format(f=DEFER_JOB))
    with pytest.raises(errors.SchemaOutdated, match=r"procrastinate_defer_job .*schema --migrate"):
        sync_app.schema_manager.check()
    assert sync_app.schema_manager.migrate() == ["functions"]
    assert sync_app.schema_manager.migrate() == []
    sync_app.schema_manager.check()
    assert sync_app.configure_task("task").defer() > 0


def test_a_changed_text_is_found_and_a_function_of_the_owner_s_is_not_minded(
    sync_app: procrastinate.App, query: Query
) -> None:
    ((text,),) = query("select pg_get_functiondef(%s::regprocedure)", DEFER_JOB)
    query(text.replace("\nend\n", "\nend -- changed\n"))
    with pytest.raises(errors.SchemaOutdated, match="schema --migrate"):
        sync_app.schema_manager.check()
    sync_app.schema_manager.migrate()
    sync_app.schema_manager.check()
    query("create function procrastinate_defer_jobs(text) returns int language sql as 'select 1'")
    sync_app.schema_manager.check()


def test_the_function_of_older_versions_beside_the_new_one_is_found_and_removed(
    sync_app: procrastinate.App, query: Query
) -> None:
    """With both, a call would be ambiguous."""
    query(
        "create function procrastinate_defer_job(task_name text, args jsonb default '{}',"
        " queue_name text default 'default', priority integer default 0, lock text default null,"
        " queueing_lock text default null, scheduled_at timestamptz default null)"
        " returns bigint language sql as 'select 7::bigint'"
    )
    with pytest.raises(errors.SchemaOutdated, match="schema --migrate"):
        sync_app.schema_manager.check()
    assert sync_app.schema_manager.migrate() == ["functions"]
    assert sync_app.configure_task("task").defer() > 0


async def test_the_function_that_the_check_of_jobs_calls_is_compared_and_made_anew(
    app: procrastinate.App, query: Query
) -> None:
    """It makes rows safe, so a worker goes on without it."""
    ((text,),) = query("select pg_get_functiondef('procrastinate_job_fits'::regproc)")
    head, _, _ = text.partition("declare")
    query(f"{head}begin return true; end $function$")
    with pytest.raises(errors.SchemaOutdated, match=r"procrastinate_job_fits .*--migrate"):
        await app.schema_manager.check_async()
    assert await app.check_connection_async()
    assert await app.schema_manager.migrate_async() == ["functions"]
    await app.schema_manager.check_async()
    assert query("select pg_get_functiondef('procrastinate_job_fits'::regproc)") == [(text,)]
    with pytest.raises(psycopg2.errors.CheckViolation):
        query("select procrastinate_defer_job('task', '3')")


def test_functions_follow_the_tables_to_another_owner(
    sync_app: procrastinate.App, query: Query, procrastinate_dsn: str
) -> None:
    """Else they would run with the rights of the old one, and each look would ask for another."""
    old, new, caller = (f"owner_{uuid.uuid4().hex[:12]}" for _ in range(3))
    ((ours, home),) = query("select current_user::regrole::text, current_schema()")
    for role in (old, new, caller):
        query(f"create role {role} login")  # on a cluster, the owner comes to the nodes
        query(f"grant create, usage on schema {home} to {role}")
    try:
        query(f"grant execute on function {DEFER_JOB} to {caller}")
        query(f"alter function {DEFER_JOB} owner to {old}")
        tables = query(
            "select oid::regclass::text from pg_class where relname like"
            " 'procrastinate%%' and relkind = 'r' and relnamespace = %s::regnamespace",
            home,
        )
        for (table,) in tables:
            query(f"alter table {table} owner to {new}")
        assert sync_app.schema_manager.migrate() == ["functions"]
        sync_app.schema_manager.check()
        assert sync_app.configure_task("task").defer() > 0
        assert query(
            "select distinct proowner::regrole::text,"
            f" has_function_privilege('{old}', oid, 'execute')"
            " from pg_proc where proname like 'procrastinate%%' and prosecdef"
            " and pronamespace = %s::regnamespace",
            home,
        ) == [(new, False)]
        assert query(f"select has_function_privilege('{caller}', '{DEFER_JOB}', 'execute')") == [
            (True,)
        ]
    finally:
        for role in (old, new, caller):
            for each in (f"reassign owned by {role} to {ours}", f"drop owned by {role}"):
                query(each)
            query(f"drop role {role}")


def test_a_function_that_another_role_made_beforehand_belongs_to_the_owner_afterwards(
    procrastinate_dsn: str, query: Query
) -> None:
    """Else that role could change it later, and it would run with the rights of that role."""
    other = f"other_{uuid.uuid4().hex[:12]}"
    query(f"create role {other}")
    query(f"grant create on schema public to {other}")
    try:
        query(
            "create function procrastinate_defer_alike(all_args jsonb, common jsonb,"
            " home regclass default 'pg_class') returns bigint[] language sql security definer"
            " as 'select null::bigint[]'"
        )
        query(f"alter function procrastinate_defer_alike owner to {other}")
        with app_of(procrastinate_dsn).open() as app:
            app.schema_manager.apply_schema()
            app.schema_manager.check()
        assert query(
            "select proowner = current_user::regrole,"
            f" has_function_privilege('{other}', oid, 'execute')"
            " from pg_proc where proname = 'procrastinate_defer_alike'"
        ) == [(True, False)]
    finally:
        query(f"drop owned by {other}")
        query(f"drop role {other}")


def test_newer_code_that_this_one_fits_may_have_other_functions(
    sync_app: procrastinate.App, query: Query
) -> None:
    latest = schema.latest_version()
    query("insert into procrastinate_migrations values (998, 'additive', %s)", latest)
    query(CHANGES[1].format(f=DEFER_JOB))
    assert sync_app.schema_manager.migrate() == []
    ((invoker,),) = query("select prosecdef from pg_proc where oid = %s::regprocedure", DEFER_JOB)
    assert invoker is False


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("move", ["rename", "tables"])
def test_nothing_is_inserted_elsewhere_after_the_tables_were_moved(
    procrastinate_dsn: str, query: Query, move: str, beside: bool
) -> None:
    """Neither where they were before, even if there are such tables again, nor anywhere else."""
    with app_of(procrastinate_dsn, schema="before").open() as app:
        app.schema_manager.apply_schema()
    if move == "rename":
        query('alter schema before rename to "after"')
    else:
        query('create schema "after"')
        for name in schema.TABLES:
            query(f'alter table before.{name} set schema "after"')
        for sort in ("job_status", "hold"):
            query(f'alter type before.procrastinate_{sort} set schema "after"')
        for name in ("defer_job", "defer_jobs", "job_fits"):
            query(f'alter function before.procrastinate_{name} set schema "after"')
    if beside:
        query("drop schema if exists before cascade")
        with app_of(procrastinate_dsn, schema="before").open() as app:
            app.schema_manager.apply_schema()

    with app_of(procrastinate_dsn, schema="after").open() as app:
        for way in ("defer", "batch", "check", "check_connection"):
            with pytest.raises(errors.SchemaOutdated, match="schema --migrate"):
                WAYS[way](app)
        with pytest.raises(psycopg2.Error, match="moved or renamed") as caught:
            query('select "after".procrastinate_defer_job(%s)', "task")
        assert caught.value.pgcode == "PQS01"
        assert app.job_manager.list_jobs() == []
        assert app.schema_manager.migrate() == ["functions"]
        app.configure_task("task").batch_defer({}, {})
        app.configure_task("task").defer()
        assert len(app.job_manager.list_jobs()) == 3
    if beside:
        assert query("select count(*) from before.procrastinate_jobs") == [(0,)]


def test_a_changed_search_path_does_not_change_where_jobs_go(
    by_path: Callable[[str], procrastinate.App], query: Query
) -> None:
    """Two sets of tables: the one whose function is called gets the job."""
    for name in ("one", "two"):
        query(f"create schema {name}")
        by_path(name).schema_manager.apply_schema()
    query("set search_path = two")
    query("select one.procrastinate_defer_job('task')")
    query('select * from one.procrastinate_defer_jobs(\'[{"task_name": "task"}]\')')
    assert query("select count(*) from one.procrastinate_jobs") == [(2,)]
    assert query("select count(*) from two.procrastinate_jobs") == [(0,)]


def test_the_script_of_read_makes_what_workers_accept(procrastinate_dsn: str, query: Query) -> None:
    for name in (None, "queue", "With Space"):
        with app_of(procrastinate_dsn, schema=name).open() as app:
            script = app.schema_manager.get_schema()
            assert script.startswith("-- The whole schema of procrastinate, at version ")
            query(script)
            assert app.schema_manager.check().versions[-1] == schema.latest_version()
            assert app.schema_manager.migrate() == []
            app.configure_task("task").defer()
            assert len(app.job_manager.list_jobs()) == 1


@pytest.mark.parametrize("name", ["o'brien", 'say "hi"', "100%", "a$b", "{house}", "back\\slash"])
def test_a_schema_on_the_path_may_have_any_name(
    procrastinate_dsn: str, query: Query, name: str
) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    query(f"create schema {quoted}")
    ((database,),) = query("select current_database()::text")
    query(f"alter database {database} set search_path = {quoted}")
    with app_of(procrastinate_dsn).open() as app:
        app.schema_manager.apply_schema()
        app.schema_manager.check()
        app.configure_task("task").defer()
        app.configure_task("task", queueing_lock="q").batch_defer({})
        assert len(app.job_manager.list_jobs()) == 2
    assert query(f"select count(*) from {quoted}.procrastinate_jobs") == [(2,)]


def test_a_schema_whose_name_is_code_is_refused(procrastinate_dsn: str, query: Query) -> None:
    """Its owner could choose what the role runs that migrates."""
    query('create schema "$function$; drop table innocent; --"')
    query("create table public.innocent ()")
    connector = procrastinate.Psycopg2Connector(
        dsn=procrastinate_dsn, schema="$function$; drop table innocent; --"
    )
    with (
        procrastinate.App(connector=connector).open() as app,
        pytest.raises(errors.ConnectorException, match="cannot make functions in the schema"),
    ):
        app.schema_manager.apply_schema()
    assert query("select to_regclass('public.innocent') is not null") == [(True,)]
