"""`manage.py migrate` and the tables of the queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.test import override_settings

from procrastinate import App
from procrastinate.errors import SchemaForeign, SchemaNotApplied, SchemaOutdated
from procrastinate_django import DjangoConnector, project

from .databases import new_alias


@pytest.fixture
def alias(procrastinate_server: Any) -> Iterator[str]:
    """The alias of an empty database."""
    with procrastinate_server.database() as dsn:
        alias = new_alias(dsn)
        yield alias
        connections[alias].close()


def migrate(alias: str, *target: str) -> None:
    call_command("migrate", "procrastinate_django", *target, database=alias, verbosity=0)


def names_of_tables(alias: str) -> set[str]:
    with connections[alias].cursor() as cursor:
        return set(connections[alias].introspection.table_names(cursor))


def test_only_the_database_of_the_jobs_has_the_tables(alias: str) -> None:
    migrate(alias)
    assert names_of_tables(alias) == {"django_migrations"}


def test_migrate_renews_functions_and_tables_that_a_release_of_core_has_changed(
    alias: str,
) -> None:
    """Django's own trail has nothing to do then."""
    with override_settings(PROCRASTINATE={"DATABASE": alias}):
        migrate(alias)
        with connections[alias].cursor() as cursor:
            cursor.execute("drop function procrastinate_defer_job")
        app = App(connector=DjangoConnector())
        with pytest.raises(SchemaOutdated):
            app.check_connection()
        migrate(alias)
        assert app.check_connection()


def test_migrate_makes_no_tables_for_another_app(alias: str) -> None:
    with override_settings(PROCRASTINATE={"DATABASE": alias}):
        call_command("migrate", "contenttypes", database=alias, verbosity=0)
    assert "procrastinate_jobs" not in names_of_tables(alias)


@pytest.mark.parametrize(
    ("schema", "where"),
    [(None, "this database (or not on the search path)"), ("jobs", "the schema jobs of this")],
)
def test_what_is_missing_is_told_in_djangos_words(
    alias: str, schema: str | None, where: str
) -> None:
    with override_settings(PROCRASTINATE={"DATABASE": alias, "SCHEMA": schema}):
        app = App(connector=DjangoConnector())
        with pytest.raises(SchemaNotApplied) as deferred:
            app.configure_task("task").defer()
        with pytest.raises(SchemaNotApplied) as checked:
            app.schema_manager.check()
        with pytest.raises(SchemaNotApplied) as in_a_transaction, transaction.atomic(using=alias):
            app.configure_task("task").defer()
    for told in (deferred, checked):
        assert where in str(told.value)
    for told in (deferred, checked, in_a_transaction):
        assert f"run `python manage.py migrate --database={alias}`" in str(told.value)
        assert "schema --apply" not in str(told.value)


def test_a_worker_tells_what_is_missing_in_djangos_words(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with override_settings(PROCRASTINATE={"DATABASE": alias}):
        of_project = App(connector=DjangoConnector())
        monkeypatch.setattr(project, "project_app", lambda: of_project)
        app = App(connector=project.worker_connector())
        with pytest.raises(SchemaNotApplied) as of_worker:
            app.run_worker(wait=False, install_signal_handlers=False)
        with app.open(), pytest.raises(SchemaNotApplied) as of_call:
            app.configure_task("task").defer()
    for told in (of_worker, of_call):
        assert f"`python manage.py migrate --database={alias}`" in str(told.value)
        assert "schema --apply" not in str(told.value)


def test_old_tables_are_told_in_djangos_words(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("create table procrastinate_jobs (id bigint)")
    with (
        override_settings(PROCRASTINATE={"DATABASE": alias}),
        pytest.raises(SchemaForeign) as raised,
    ):
        App(connector=DjangoConnector()).configure_task("task").defer()
    assert "of its own, by `PROCRASTINATE = {'SCHEMA': ...}` and `python manage.py migrate" in str(
        raised.value
    )
    assert "`python manage.py procrastinate import`" in str(raised.value)


def test_tables_that_django_does_not_make_are_told_in_cores_words(alias: str) -> None:
    with pytest.raises(SchemaNotApplied, match="run `procrastinate schema --apply`"):
        App(connector=DjangoConnector(alias=alias)).configure_task("task").defer()


def test_jobs_are_in_the_database_and_the_schema_that_the_setting_names(alias: str) -> None:
    settings = {"DATABASE": alias, "SCHEMA": "jobs"}
    with override_settings(PROCRASTINATE=settings):
        migrate(alias)
        migrate(alias)
        app = App(connector=DjangoConnector())
        job_id = app.configure_task("task").defer(n=1)
        migrate(alias, "zero")  # drops nothing
        migrate(alias)
        assert app.job_manager.get_job_status(job_id) == "todo"
    with connections[alias].cursor() as cursor:
        cursor.execute("select count(*) from jobs.procrastinate_jobs")
        assert cursor.fetchone() == (1,)
