"""``connection=``: what binds it, what is refused, and with which words."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any
from unittest import mock

import aiopg
import psycopg2
import psycopg2.extensions
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

import procrastinate
from procrastinate import binders, connectors, errors
from procrastinate.connector import Binder, Query, Rows
from procrastinate.errors import (
    ConnectorConflict,
    ConnectorException,
    ConnectorNotInstalled,
    InvalidOption,
    SchemaNotApplied,
)
from procrastinate.testing import InMemoryConnector


def add(a: int = 1) -> None: ...


def named(name: str, *bases: type) -> Any:
    """Return an object of a class with a qualified name."""
    module, _, qualname = name.rpartition(".")
    return type("Any", bases, {"__module__": module, "__qualname__": qualname})()


class Recorded:
    """What executes a query on a connection of a test's own driver."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def execute(self, query: Query, /) -> Rows:
        if query.name == "get_place":  # the first look for the tables
            return [(1, "database", datetime.now(UTC))]
        self.connection.queries.append((threading.get_ident(), query))
        return [(7,)]


class RecordedAsync(Recorded):
    async def execute(self, query: Query, /) -> Rows:  # type: ignore[override]
        return super().execute(query)


SYNC = Binder("home-made connection", bind=Recorded)
ASYNC = Binder("home-made connection", bind_async=RecordedAsync)
NO_BINDER = "not a binder"


def broken(connection: Any) -> Any:
    raise ZeroDivisionError


BROKEN = Binder("fragile connection", bind=broken)


class Connection:
    """One that nobody's package binds, unless a test says so."""

    def __init__(self) -> None:
        self.queries: list[tuple[int, Query]] = []


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that installs binders: the objects of this module, for names of classes."""
    found: dict[str, list[metadata.EntryPoint]] = {}
    usual = connectors.entry_points

    def install(name: str, *objects: str) -> None:
        values = [f"{__name__}:{each}" for each in objects]
        found[name] = [metadata.EntryPoint(name, value, binders.GROUP) for value in values]

    monkeypatch.setattr(
        connectors, "entry_points", lambda group: found if group == binders.GROUP else usual(group)
    )
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    binders._binder_of.cache_clear()
    yield install
    binders._binder_of.cache_clear()


def home_made(cls: type = Connection) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@pytest.fixture
def app() -> procrastinate.App:
    """One that is not open."""
    return procrastinate.App(connector=procrastinate.Psycopg2Connector())


@pytest.fixture
def async_app() -> procrastinate.App:
    return procrastinate.App(connector=procrastinate.AiopgConnector())


# --- Finding ---


def test_a_binder_serves_the_subclasses_of_its_class(
    app: procrastinate.App, install: Callable[..., None]
) -> None:
    class Theirs(Connection): ...

    install(home_made(), "SYNC")
    connection = Theirs()
    assert app.task(add).configure(connection=connection).defer() == 7
    assert [query.name for _, query in connection.queries] == ["defer_job"]


def test_a_proxy_is_taken_for_what_it_says_it_is(
    app: procrastinate.App, install: Callable[..., None]
) -> None:
    class Traced:
        def __init__(self, connection: Connection) -> None:
            self.__dict__["connection"] = connection

        @property  # type: ignore[misc]
        def __class__(self) -> type:
            return Connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["connection"], name)

    install(home_made(), "SYNC")
    connection = Connection()
    assert app.task(add).configure(connection=Traced(connection)).defer() == 7
    assert len(connection.queries) == 1


def test_two_binders_for_one_class_are_both_named(
    app: procrastinate.App, install: Callable[..., None]
) -> None:
    install(home_made(), "SYNC", "BROKEN")
    with pytest.raises(ConnectorConflict) as caught:
        app.task(add).configure(connection=Connection()).defer()
    assert f"{__name__}:SYNC" in str(caught.value)
    assert f"{__name__}:BROKEN" in str(caught.value)


@pytest.mark.parametrize("name", ["NO_BINDER", "MISSING"])
def test_a_binder_that_cannot_be_loaded_is_named(
    app: procrastinate.App, install: Callable[..., None], name: str
) -> None:
    install(home_made(), name)
    with pytest.raises(errors.ConnectorBroken, match=f"{__name__}:{name}"):
        app.task(add).configure(connection=Connection()).defer()


@pytest.mark.parametrize("name", binders.PUBLISHED)
def test_a_missing_package_is_named(
    app: procrastinate.App, install: Callable[..., None], name: str
) -> None:
    """For a subclass as well."""
    words, package = binders.PUBLISHED[name]
    for connection in (named(name), named("app.Theirs", type(named(name)))):
        with pytest.raises(ConnectorNotInstalled) as caught:
            app.configure_task("add", connection=connection).defer()
        assert words in str(caught.value)
        assert str(caught.value).endswith(f"run `pip install {package}`")


def test_installed_binders_are_listed_without_importing_them() -> None:
    code = (
        "import sys, procrastinate.binders as binders; print('psycopg2.extensions.connection' in"
        " binders.available(), 'psycopg2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


# --- What is no connection ---


class Raising:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")


class Endless:
    """It has every attribute, and that again."""

    def __getattr__(self, name: str) -> Any:
        return self


class Meta(type):
    @property
    def __mro__(cls) -> Any:
        raise RuntimeError

    def __hash__(cls) -> int:
        return 1


STRANGERS: dict[str, Callable[[], Any]] = {
    "object": object,
    "url": lambda: "postgresql://",
    "call": lambda: mock.call,
    "mock": mock.Mock,
    "mock of a connection": lambda: mock.MagicMock(spec=psycopg2.extensions.connection),
    "autospec": lambda: mock.create_autospec(Session, instance=True),
    "async mock": mock.AsyncMock,
    "raising": Raising,
    "endless": Endless,
    "metaclass": Meta("Odd", (), {}),
    "class": lambda: Connection,
    "engine": lambda: sqlalchemy.create_engine("postgresql+psycopg2://"),
}


@pytest.mark.parametrize("kind", STRANGERS)
async def test_what_is_no_connection_is_refused(
    app: procrastinate.App, async_app: procrastinate.App, kind: str
) -> None:
    thing = STRANGERS[kind]()
    task = app.task(name="add")(add)
    with pytest.raises(InvalidOption, match="connection="):
        task.configure(connection=thing).defer()
    with pytest.raises(InvalidOption, match="connection="):
        app.job_manager.list_jobs(connection=thing)
    with pytest.raises(InvalidOption, match="connection="):
        await async_app.configure_task("add", connection=thing).defer_async()


@pytest.mark.parametrize("name", binders.NEIGHBOURS)
def test_a_neighbour_of_a_connection_is_refused_with_what_to_write(
    app: procrastinate.App, name: str
) -> None:
    with pytest.raises(InvalidOption) as caught:
        app.task(add).configure(connection=named(name)).defer()
    assert str(caught.value) == f"connection= takes no {name}: {binders.NEIGHBOURS[name]}"


def test_what_a_binder_stumbles_over_is_refused(
    app: procrastinate.App, install: Callable[..., None]
) -> None:
    install(home_made(), "BROKEN")
    with pytest.raises(InvalidOption, match=r"a fragile connection: builtins\.ZeroDivisionError"):
        app.task(add).configure(connection=Connection()).defer()


# --- Synchronous and asynchronous ---


async def test_a_synchronous_connection_runs_in_a_thread_in_asynchronous_calls(
    async_app: procrastinate.App, install: Callable[..., None]
) -> None:
    install(home_made(), "SYNC")
    connection = Connection()
    assert await async_app.task(add).configure(connection=connection).defer_async() == 7
    ((thread, _),) = connection.queries
    assert thread != threading.get_ident()


async def test_an_asynchronous_connection_runs_on_the_loop_whatever_the_connector(
    app: procrastinate.App, install: Callable[..., None]
) -> None:
    install(home_made(), "ASYNC")
    connection = Connection()
    assert await app.task(add).configure(connection=connection).defer_async() == 7
    ((thread, _),) = connection.queries
    assert thread == threading.get_ident()


def test_an_asynchronous_connection_in_a_plain_call_is_refused_with_the_call_to_write(
    async_app: procrastinate.App, install: Callable[..., None]
) -> None:
    install(home_made(), "ASYNC")
    with pytest.raises(InvalidOption, match=r"await .*configure.*\.defer_async\("):
        async_app.task(add).configure(connection=Connection()).defer()


# --- In memory ---


@pytest.mark.parametrize("kind", STRANGERS)
async def test_an_app_in_memory_keeps_the_jobs_of_any_connection(kind: str) -> None:
    connection = STRANGERS[kind]()
    memory = InMemoryConnector()
    app = procrastinate.App(connector=memory)
    task = app.task(name="add")(add)
    task.configure(connection=connection).defer(a=1)
    await task.configure(connection=connection).defer_async(a=2)
    task.configure(connection=connection).batch_defer({"a": 3}, {"a": 4})
    assert [job.task_kwargs["a"] for job in memory.jobs] == [1, 2, 3, 4]
    job_id = memory.jobs[0].id
    assert app.job_manager.cancel_job_by_id(job_id, connection=connection)
    assert await app.job_manager.retry_job_by_id_async(job_id, connection=connection)
    assert len(app.job_manager.cancel_jobs(task="add", connection=connection)) == 4


# --- On a database ---


def test_a_connection_to_the_apps_own_tables_is_accepted(
    sync_app: procrastinate.App, dsn: str
) -> None:
    sync_app.task(name="add")(add).defer()  # from now on it has seen them
    with closing(psycopg2.connect(dsn)) as connection:
        task = sync_app.tasks["add"].configure(connection=connection)
        ids = [task.defer(), *task.batch_defer({"a": 1}, {"a": 2})]
        ids.append(sync_app.configure_task("add", partition_key="k", connection=connection).defer())
        ids += sync_app.configure_task("add", connection=connection).batch_defer({}, {})
        connection.commit()
    assert [job.id for job in sync_app.job_manager.list_jobs()][1:] == ids


OTHER_TABLES = "leads to other tables"


@pytest.fixture
def other(sync_app: procrastinate.App, dsn: str) -> Iterator[Any]:
    """A connection that leads to other tables: those of another schema."""
    name = f"elsewhere_{secrets.token_hex(6)}"  # a cluster has one database for all tests
    theirs = procrastinate.Psycopg2Connector(dsn=dsn, schema=name)
    with procrastinate.App(connector=theirs).open() as app:
        app.schema_manager.apply_schema()
    with closing(psycopg2.connect(dsn, options=f"-c search_path={name}")) as connection:
        yield connection
        connection.rollback()
        with connection, connection.cursor() as cursor:
            cursor.execute(f"drop schema {name} cascade")


def test_other_tables_than_the_app_has_seen_are_refused(
    sync_app: procrastinate.App, other: Any
) -> None:
    """Nothing is done there, and the transaction stays usable."""
    task = sync_app.task(name="add")(add)
    job_id = task.defer()
    manager = sync_app.job_manager
    for call in (
        lambda: task.configure(connection=other).defer(),
        lambda: task.configure(connection=other).batch_defer({}, {}),
        lambda: task.configure(connection=other, queueing_lock="q").batch_defer({}),
        lambda: task.configure(connection=other, partition_key="k").defer(),
        lambda: manager.list_jobs(connection=other),
        lambda: manager.cancel_job_by_id(job_id, connection=other),
        lambda: manager.retry_jobs(task="add", connection=other),
    ):
        with pytest.raises(InvalidOption, match=OTHER_TABLES):
            call()
    with other.cursor() as cursor:
        cursor.execute("select count(*) from procrastinate_jobs")
        assert cursor.fetchone() == (0,)
    assert manager.get_job_status(job_id) == "todo"


@pytest.mark.parametrize("name", [None, "queue"])
def test_another_database_without_tables_is_other_tables(
    dsn: str, procrastinate_server: Any, name: str | None
) -> None:
    """Whether the tables are found by the search_path or by a schema's name."""
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn, schema=name))
    with (
        procrastinate_server.database() as empty,
        app.open(),
        closing(psycopg2.connect(empty)) as connection,
    ):
        app.schema_manager.apply_schema()
        task = app.task(name="add")(add)
        task.defer()
        with pytest.raises(InvalidOption, match=OTHER_TABLES):
            app.job_manager.list_jobs(connection=connection)
        with connection.cursor() as cursor:
            cursor.execute("select 1")  # the transaction goes on
        with pytest.raises(InvalidOption, match=rf"{OTHER_TABLES}.*roll it back"):
            task.configure(connection=connection).defer()
        connection.rollback()
        assert len(app.job_manager.list_jobs()) == 1


def test_an_app_that_has_seen_no_tables_takes_those_of_the_connection(dsn: str, other: Any) -> None:
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn))
    with other:
        app.task(add).configure(connection=other).defer()
    with other.cursor() as cursor:
        cursor.execute("select count(*) from procrastinate_jobs")
        assert cursor.fetchone() == (1,)


async def test_a_first_look_for_tables_that_are_missing_leaves_the_transaction_usable(
    procrastinate_server: Any,
) -> None:
    """On an app that is not open, and that has seen no tables."""

    def new_app() -> procrastinate.App:
        return procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn="dbname=nowhere"))

    def goes_on(connection: Any) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("select true")
            return cursor.fetchone() == (True,)

    with (
        procrastinate_server.database() as empty,
        closing(psycopg2.connect(empty)) as connection,
    ):
        for app in (new_app(), new_app()):
            task = app.task(name="add")(add).configure(connection=connection)
            with pytest.raises(SchemaNotApplied, match=r"leads to no tables.*Nothing was done"):
                task.defer()
            assert goes_on(connection)
            with pytest.raises(SchemaNotApplied, match="leads to no tables"):
                await task.batch_defer_async({}, {})
            assert goes_on(connection)
            with pytest.raises(SchemaNotApplied, match="leads to no tables"):
                app.job_manager.cancel_job_by_id(1, connection=connection)
            assert goes_on(connection)


def test_what_the_app_saw_before_it_was_closed_is_compared_when_it_is_open_again(
    sync_app: procrastinate.App, other: Any
) -> None:
    """Closed, it refuses nothing: it may be opened on that database next."""
    task = sync_app.task(name="add")(add)
    task.defer()
    sync_app.close()
    sync_app.open()
    with pytest.raises(InvalidOption, match=OTHER_TABLES):
        task.configure(connection=other).defer()
    sync_app.close()
    task.configure(connection=other).defer()


def test_without_tables_the_error_says_what_became_of_the_transaction(
    app: procrastinate.App, dsn: str
) -> None:
    """At the first connection it has looked; later it does not."""
    with closing(psycopg2.connect(dsn)) as connection:
        app.job_manager.list_jobs(connection=connection)
    with (
        closing(psycopg2.connect(dsn, options="-c search_path=nowhere")) as connection,
        pytest.raises(SchemaNotApplied, match=r"schema --apply.*has failed: roll it back"),
    ):
        app.task(add).configure(connection=connection).defer()


def test_tables_made_anew_are_seen_anew(sync_app: procrastinate.App, dsn: str) -> None:
    task = sync_app.task(name="add")(add)
    task.defer()
    place = sync_app._gateway._place.known
    assert place is not None
    # As before a restart of the server.
    sync_app._gateway._place.known = replace(place, start=place.start - timedelta(hours=1))
    with closing(psycopg2.connect(dsn)) as connection, connection:
        task.configure(connection=connection).defer()
        assert len(sync_app.job_manager.list_jobs(connection=connection)) == 2


def test_a_call_of_several_statements_needs_a_transaction(
    sync_app: procrastinate.App, dsn: str
) -> None:
    task = sync_app.task(name="add")(add)
    manager = sync_app.job_manager
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        job_id = task.configure(connection=connection).defer()  # one statement
        for call in (
            lambda: manager.cancel_job_by_id(job_id, connection=connection),
            lambda: manager.cancel_jobs(id=job_id, connection=connection),
            lambda: manager.retry_job_by_id(job_id, connection=connection),
        ):
            with pytest.raises(InvalidOption, match=r"autocommit.*connection\.transaction\(\)"):
                call()
        assert manager.get_job_status(job_id, connection=connection) == "todo"


def test_a_read_only_transaction_is_no_lost_connection(
    sync_app: procrastinate.App, dsn: str
) -> None:
    task = sync_app.task(name="add")(add)
    job_id = task.defer()
    with closing(psycopg2.connect(dsn)) as connection:
        connection.set_session(readonly=True)
        for call in (
            lambda: task.configure(connection=connection).defer(),
            lambda: sync_app.job_manager.cancel_job_by_id(job_id, connection=connection),
        ):
            with pytest.raises(ConnectorException, match=r"may not write.*Roll") as caught:
                call()
            assert (type(caught.value), caught.value.sqlstate) == (ConnectorException, "25006")
            assert isinstance(caught.value.__cause__, psycopg2.Error)
            connection.rollback()
        assert len(sync_app.job_manager.list_jobs(connection=connection)) == 1


async def test_a_transaction_that_has_failed_is_told_apart(
    sync_app: procrastinate.App, async_app: procrastinate.App, dsn: str
) -> None:
    task = sync_app.task(name="add")(add)
    with closing(psycopg2.connect(dsn)) as connection:
        with connection.cursor() as cursor, pytest.raises(psycopg2.Error):
            cursor.execute("select 1 / 0")
        for call in (
            lambda: task.configure(connection=connection).defer(),
            lambda: sync_app.job_manager.list_jobs(connection=connection),
            lambda: sync_app.job_manager.cancel_job_by_id(1, connection=connection),
        ):
            with pytest.raises(
                ConnectorException, match="has failed before: roll it back"
            ) as caught:
                call()
            assert isinstance(caught.value.__cause__, psycopg2.Error)
        connection.rollback()
        task.configure(connection=connection).defer()
    async with aiopg.connect(dsn) as connection, connection.cursor() as cursor:
        await cursor.execute("begin")
        with pytest.raises(psycopg2.Error):
            await cursor.execute("select 1 / 0")
        with pytest.raises(ConnectorException, match="has failed before: roll it back"):
            await async_app.configure_task("add", connection=connection).defer_async()
