"""What a project finds that has moved from Procrastinate 3: old names, settings and tables."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connections
from django.test import override_settings

import procrastinate_django
from procrastinate_django.checks import _OLD, check_project, check_tables

from .databases import new_alias


def test_the_app_is_found_under_its_old_name() -> None:
    from procrastinate.contrib.django.procrastinate_app import app as again

    from procrastinate.contrib.django import app

    assert app is again is procrastinate_django.app


@pytest.mark.parametrize(
    ("old", "instead"),
    [
        ("models.ProcrastinateJob", "from procrastinate_django.models import Job"),
        ("models.ProcrastinateWorker", "app.job_manager.list_workers()"),
        ("connector_params", "nothing: a worker's connector is made"),
        ("utils.connector_params", "nothing: a worker's connector is made"),
        ("healthchecks.healthchecks", "`python manage.py procrastinate healthchecks`"),
        ("django_connector.DjangoConnector", "from procrastinate_django import DjangoConnector"),
        ("exceptions.DjangoNotReady", "nothing: the app can be used"),
        ("models.Unheard", "what procrastinate_django has instead"),
    ],
)
def test_other_old_names_say_what_to_write(old: str, instead: str) -> None:
    module, _, name = f"procrastinate.contrib.django.{old}".rpartition(".")
    with pytest.raises(ImportError) as caught:
        exec(f"from {module} import {name}")
    assert f"{old} was Procrastinate 3's. Instead: {instead}" in str(caught.value)


def test_old_names_leave_introspection_alone() -> None:
    module = importlib.import_module("procrastinate.contrib.django.models")
    assert not hasattr(module, "__wrapped__")


def test_the_old_entry_of_installed_apps_is_refused() -> None:
    script = (
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['procrastinate.contrib.django'])\n"
        "import django; django.setup()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "write 'procrastinate_django' instead" in done.stderr.splitlines()[-1]


def test_each_old_setting_is_named_with_the_new_one() -> None:
    with override_settings(**dict.fromkeys(_OLD)):
        found = check_project()
    assert {each.id for each in found} == {"procrastinate_django.E004"}
    assert [each.msg.split()[2] for each in found] == list(_OLD)
    assert "PROCRASTINATE = {'DATABASE': ...}" in str(found[1].hint)


def test_tables_are_asked_for_only_in_the_database_that_has_the_jobs() -> None:
    assert check_tables(databases=None) == []
    assert check_tables(databases=["other"]) == []


def test_missing_tables_are_a_warning_that_names_the_command(procrastinate_server: Any) -> None:
    with procrastinate_server.database() as dsn:
        alias = new_alias(dsn)
        with override_settings(PROCRASTINATE={"DATABASE": alias, "SCHEMA": "jobs"}):
            (found,) = check_tables(databases=[alias])
            assert (found.id, "no tables" in found.msg) == ("procrastinate_django.W002", True)
            assert f"`python manage.py migrate --database={alias}`" in str(found.hint)
            call_command("migrate", "procrastinate_django", database=alias, verbosity=0)
            assert check_tables(databases=[alias]) == []
            with connections[alias].cursor() as cursor:
                cursor.execute("delete from jobs.procrastinate_migrations where version > 5")
            (found,) = check_tables(databases=[alias])
            assert (found.id, "lacks the migrations" in found.msg) == (
                "procrastinate_django.W002",
                True,
            )
        connections[alias].close()


def test_a_database_that_does_not_answer_is_an_error(tmp_path: Any) -> None:
    alias = new_alias(f"host={tmp_path} user=u dbname=d")
    with override_settings(PROCRASTINATE={"DATABASE": alias}):
        (found,) = check_tables(databases=[alias])
    assert found.id == "procrastinate_django.E006"


def test_the_tables_of_release_3_are_left_alone(procrastinate_server: Any) -> None:
    """Its projects had them in the schema that is the first one on the search_path."""
    with procrastinate_server.database() as dsn:
        alias = new_alias(dsn)
        with connections[alias].cursor() as cursor:
            cursor.execute("create table procrastinate_jobs (id bigserial primary key, task text)")
            cursor.execute("create table procrastinate_events (id bigserial primary key)")
        with override_settings(PROCRASTINATE={"DATABASE": alias}):
            with pytest.raises(SystemCheckError, match="E005") as checked:
                migrate(alias, skip_checks=False)
            with pytest.raises(CommandError, match="neither uses nor migrates") as migrated:
                migrate(alias)
        for caught in (checked, migrated):
            assert "PROCRASTINATE = {'SCHEMA': 'jobs'}" in str(caught.value)
        with connections[alias].cursor() as cursor:
            found = set(connections[alias].introspection.table_names(cursor))
        assert found == {"procrastinate_jobs", "procrastinate_events", "django_migrations"}
        connections[alias].close()


def migrate(alias: str, **options: Any) -> None:
    call_command("migrate", "procrastinate_django", database=alias, verbosity=0, **options)
