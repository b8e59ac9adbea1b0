"""`transaction.atomic` decides about jobs, through Django's connector and by ``connection=``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction
from django.utils.connection import ConnectionProxy

import procrastinate
from procrastinate import App, connectors
from procrastinate.connector import Query
from procrastinate.errors import AlreadyEnqueued, ConfigurationError, InvalidOption
from procrastinate_django import DjangoConnector

from .databases import new_alias


class Undone(Exception):
    """Rolls a block of `atomic` back."""


@pytest.fixture(scope="module")
def dsn(procrastinate_server: Any) -> Iterator[str]:
    with procrastinate_server.database() as dsn:
        with App(connector=connectors.get("psycopg2")(dsn=dsn)).open() as app:
            app.schema_manager.apply_schema()
        yield dsn


@pytest.fixture
def alias(dsn: str) -> Iterator[str]:
    """The alias of a database with empty tables."""
    alias = new_alias(dsn)
    with connections[alias].cursor() as cursor:
        cursor.execute("delete from procrastinate_jobs")
    yield alias
    connections[alias].close()


@pytest.fixture
def app(alias: str) -> App:
    return App(connector=DjangoConnector(alias=alias))


def numbers(app: App) -> list[int]:
    """Return the argument of each job that is there."""
    return sorted(job.task_kwargs["n"] for job in app.job_manager.list_jobs())


def outside(dsn: str) -> list[int]:
    """Return what another connection sees."""
    with App(connector=connectors.get("psycopg2")(dsn=dsn)).open() as app:
        return numbers(app)


def test_a_job_outside_of_atomic_is_there_at_once(app: App, dsn: str) -> None:
    app.configure_task("task").defer(n=1)
    assert outside(dsn) == [1]


def test_jobs_are_there_when_atomic_commits(app: App, alias: str, dsn: str) -> None:
    with transaction.atomic(using=alias):
        app.configure_task("task").defer(n=1)
        app.configure_task("task").batch_defer({"n": 2}, {"n": 3})
        assert numbers(app) == [1, 2, 3]
        assert outside(dsn) == []
    assert outside(dsn) == [1, 2, 3]


@pytest.mark.parametrize("of", ["plain", "async"])
def test_observers_are_told_that_atomic_may_still_roll_back(alias: str, of: str) -> None:
    told: list[tuple[str, bool]] = []

    class Watch(procrastinate.Observer):
        def on_deferred(self, event: Any) -> None:
            told.append(("deferred", event.in_transaction))

        def on_changed(self, event: Any) -> None:
            told.append((event.change, event.in_transaction))

    app = App(connector=DjangoConnector(alias=alias), observers=[Watch()])
    task, cancel = app.configure_task("t"), app.job_manager.cancel_job_by_id
    defer: Callable[..., int] = task.defer
    if of == "async":  # these run in this thread
        defer = async_to_sync(task.defer_async)
        cancel = async_to_sync(app.job_manager.cancel_job_by_id_async)
    with transaction.atomic(using=alias):
        cancel(defer(n=1))
    cancel(defer(n=2))
    assert told == [
        ("deferred", True),
        ("cancelled", True),
        ("deferred", False),
        ("cancelled", False),
    ]


def test_jobs_are_gone_when_atomic_rolls_back(app: App, alias: str) -> None:
    with pytest.raises(Undone), transaction.atomic(using=alias):
        app.configure_task("task").defer(n=1)
        raise Undone
    assert numbers(app) == []


def test_a_savepoint_decides_about_its_own_jobs(app: App, alias: str) -> None:
    with transaction.atomic(using=alias):
        app.configure_task("task").defer(n=1)
        with pytest.raises(Undone), transaction.atomic(using=alias):
            app.configure_task("task").defer(n=2)
            raise Undone
        app.configure_task("task").defer(n=3)
    assert numbers(app) == [1, 3]


def test_the_transaction_goes_on_after_a_twin_was_refused(app: App, alias: str) -> None:
    task = app.configure_task("task", queueing_lock="twins")
    with transaction.atomic(using=alias):
        task.defer(n=1)
        with pytest.raises(AlreadyEnqueued):
            task.defer(n=2)
        app.configure_task("task").defer(n=3)
    assert numbers(app) == [1, 3]


def test_a_batch_of_several_statements_is_undone_with_the_transaction(app: App, alias: str) -> None:
    jobs = [{"n": n} for n in range(5_001)]
    with pytest.raises(Undone), transaction.atomic(using=alias):
        assert len(app.configure_task("task").batch_defer(*jobs)) == 5_001
        raise Undone
    assert numbers(app) == []


def test_jobs_are_cancelled_and_retried_in_the_transaction(app: App, alias: str) -> None:
    job_id = app.configure_task("task").defer(n=1)
    with pytest.raises(Undone), transaction.atomic(using=alias):
        assert app.job_manager.cancel_job_by_id(job_id)
        assert app.job_manager.get_job_status(job_id) == "cancelled"
        raise Undone
    assert app.job_manager.get_job_status(job_id) == "todo"


def test_a_connection_without_autocommit_is_in_a_transaction(dsn: str, app: App) -> None:
    alias = new_alias(dsn, AUTOCOMMIT=False)
    with closing(connections[alias]) as connection:
        App(connector=DjangoConnector(alias=alias)).configure_task("task").defer(n=1)
        assert outside(dsn) == []
        connection.commit()
    assert outside(dsn) == [1]


def test_reading_in_a_transaction_leaves_it_writable(app: App, alias: str) -> None:
    with transaction.atomic(using=alias):
        with app.connector.session(transaction=True, read_only=True) as session:
            with pytest.raises(procrastinate.ConnectorException, match="read-only"):
                session.execute(Query("write", "create table nothing ()"))
            raised = True
        app.configure_task("task").defer(n=1)
    assert raised
    assert numbers(app) == [1]


def test_a_transaction_that_was_begun_by_hand_is_refused(app: App, alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("begin")
        with pytest.raises(procrastinate.ConnectorException, match=r"transaction\.atomic"):
            app.configure_task("task").defer(n=1)
        cursor.execute("rollback")
    app.configure_task("task").defer(n=2)
    assert numbers(app) == [2]


def test_coroutines_defer_in_the_thread_of_djangos_code(app: App, alias: str, dsn: str) -> None:
    def in_atomic(*, undone: bool) -> None:
        with transaction.atomic(using=alias):
            app.configure_task("task").defer(n=1)
            if undone:
                raise Undone

    async def run() -> None:
        await app.configure_task("task").defer_async(n=2)
        with pytest.raises(Undone):
            await sync_to_async(in_atomic)(undone=True)
        await sync_to_async(in_atomic)(undone=False)
        await sync_to_async(lambda: connections[alias].close())()

    asyncio.run(run())
    assert outside(dsn) == [1, 2]


@pytest.mark.parametrize("connector", ["aiopg", "psycopg2", "asyncpg"])
def test_any_app_takes_djangos_connection(connector: str, alias: str, dsn: str) -> None:
    """By the object of `connections`: its schema is that of the app."""
    app = App(connector=connectors.get(connector)(dsn=dsn))
    with transaction.atomic(using=alias):
        app.configure_task("task", connection=connections[alias]).defer(n=1)
        assert outside(dsn) == []
    with pytest.raises(Undone), transaction.atomic(using=alias):
        app.configure_task("task", connection=connections[alias]).defer(n=2)
        raise Undone
    assert outside(dsn) == [1]


def test_a_proxy_as_that_of_the_default_connection_is_taken(app: App, dsn: str, alias: str) -> None:
    connection = ConnectionProxy(connections, alias)
    with pytest.raises(Undone), transaction.atomic(using=alias):
        app.configure_task("task", connection=connection).defer(n=1)
        raise Undone
    assert outside(dsn) == []
    app.configure_task("task", connection=connection).defer(n=2)
    assert outside(dsn) == [2]


def test_a_database_that_is_no_postgresql_is_refused() -> None:
    connections.settings["lite"] = connections.configure_settings(
        {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    )["default"]
    app = App(connector=DjangoConnector(alias="lite"))
    with pytest.raises(ConfigurationError, match=re.escape("'lite' is sqlite")):
        app.configure_task("task").defer(n=1)
    with pytest.raises(ConfigurationError, match=re.escape("'lite' is sqlite")):
        app.configure_task("task", connection=connections["lite"]).defer(n=1)
    with pytest.raises(ConfigurationError, match=re.escape("'lite' is sqlite")):
        app.open()


def test_a_pool_is_refused(app: App) -> None:
    with pytest.raises(InvalidOption, match="takes no pool"):
        app.open(object())


def test_it_can_be_named_by_a_url() -> None:
    connector = connectors.resolve("django://other?schema=jobs")
    assert isinstance(connector, DjangoConnector)
    assert (connector.alias, connector.schema) == ("other", "jobs")
    with pytest.raises(ConfigurationError, match="stands in DATABASES"):
        connectors.resolve("django://user:password@host/database")


def test_a_server_that_is_not_there_is_an_error_of_ours(tmp_path: Any) -> None:
    alias = new_alias(f"host={tmp_path} dbname=nowhere")
    with pytest.raises(procrastinate.ConnectorException, match="cannot connect"):
        App(connector=DjangoConnector(alias=alias)).configure_task("task").defer(n=1)
