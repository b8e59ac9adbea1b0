"""The setting ``PROCRASTINATE``, the system checks, and the two apps of a project."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

from procrastinate import ConfigurationError
from procrastinate_django import conf
from procrastinate_django.checks import check_project, check_tasks
from procrastinate_django.management.commands.procrastinate import without_djangos
from procrastinate_django.project import _refuse_another_database, parameters_of

from .databases import new_alias


def test_what_is_not_set_has_a_default() -> None:
    assert conf.read_conf() == conf.Conf()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"SCHEMA": "jobs"}, conf.Conf(schema="jobs")),
        ({"AUTODISCOVER": False}, conf.Conf(autodiscover=None)),
        ({"AUTODISCOVER": "jobs"}, conf.Conf(autodiscover="jobs")),
        ({"IMPORT_PATHS": ["a.b"]}, conf.Conf(import_paths=("a.b",))),
        ({"WORKER_DEFAULTS": {"concurrency": 2}}, conf.Conf(worker_defaults={"concurrency": 2})),
    ],
)
def test_what_is_set_is_read(given: dict[str, Any], read: conf.Conf) -> None:
    with override_settings(PROCRASTINATE=given):
        assert conf.read_conf() == read


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("jobs", "PROCRASTINATE must be a dict, not str"),
        ({"SHEMA": "jobs"}, "has no option 'SHEMA': it takes SCHEMA, DATABASE,"),
        ({"SCHEMA": 1}, "['SCHEMA'] must be a str or None, not int"),
        ({"SCHEMA": 'a"b'}, "['SCHEMA']: schema must not contain quotes"),
        ({"SCHEMA": ""}, "['SCHEMA']: schema must"),
        ({"DATABASE": "other"}, "['DATABASE'] is 'other', which is not in DATABASES"),
        ({"WORKER_DEFAULTS": []}, "['WORKER_DEFAULTS'] must be a dict of options"),
        ({"IMPORT_PATHS": "a.b"}, "['IMPORT_PATHS'] must be a list of dotted paths, not str"),
        ({"REDACT": "iban"}, "['REDACT'] must be a list of words, or a function"),
        ({"WORKER_DEFAULTS": {"concurency": 3}}, "['WORKER_DEFAULTS']: "),
        ({"WORKER_DEFAULTS": {"concurrency": 0}}, "['WORKER_DEFAULTS']: concurrency"),
        ({"PERIODIC_DEFAULTS": {"x": 1}}, "['PERIODIC_DEFAULTS']: periodic_defaults has no"),
        ({"AUTODISCOVER": "a b"}, "['AUTODISCOVER']: 'a b' is no name of modules"),
        ({"REDACT": [1]}, "['REDACT']: redact must be a list of words, and has 1"),
    ],
)
def test_what_cannot_be_is_refused_and_found_by_the_checks(given: Any, said: str) -> None:
    with override_settings(PROCRASTINATE=given):
        with pytest.raises(ImproperlyConfigured) as caught:
            conf.read_conf()
        assert said in str(caught.value)
        (found,) = check_project()
        assert (found.id, said in found.msg) == ("procrastinate_django.E001", True)


def test_the_checks_find_nothing_in_a_project_that_is_well() -> None:
    assert check_project() == []


@pytest.mark.parametrize(
    "path", ["nowhere.at_all", "json.nothing", "nowhere", "", ".", "json.decoder.x", 1]
)
def test_the_checks_find_modules_that_are_not_there(path: Any) -> None:
    with override_settings(PROCRASTINATE={"IMPORT_PATHS": ["json.decoder", path]}):
        (found,) = check_project()
    assert (found.id, repr(path) in found.msg) == ("procrastinate_django.E007", True)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, []),
        ({"QUEUES": ["mail"], "OPTIONS": {}}, []),
        ({"OPTIONS": {"size": 1}}, [("E011", "takes no OPTIONS, and has 'size'")]),
        ({"OPTIONS": ["size"]}, [("E011", "takes no OPTIONS, and has ['size']")]),
        ({"RETRY": 3}, [("E012", "has no option 'RETRY': it takes BACKEND, QUEUES")]),
    ],
)
def test_the_checks_look_at_entries_of_our_backend(more: Any, found: list[tuple[str, str]]) -> None:
    tasks = {
        "odd": {"BACKEND": "procrastinate_django.ProcrastinateBackend", **more},
        "other": {"BACKEND": "elsewhere.Backend", "RETRY": 3, "OPTIONS": {"size": 1}},
    }
    with override_settings(TASKS=tasks):
        said = [(each.id, each.msg) for each in check_tasks()]
    assert said == [
        (f"procrastinate_django.{number}", f"the backend 'odd' of TASKS {text}")
        for number, text in found
    ]
    assert check_tasks in registry.get_checks()


def test_the_checks_find_a_database_that_is_no_postgresql() -> None:
    databases = {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    }
    script = (
        "from django.conf import settings\n"
        f"settings.configure(DATABASES={databases!r}, INSTALLED_APPS=['procrastinate_django'])\n"
        "import django; django.setup()\n"
        "from django.core.management import call_command; call_command('check')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "procrastinate_django.E002" in done.stderr
    assert "the database 'default' is sqlite" in done.stderr


def test_workers_connect_as_django_does() -> None:
    alias = new_alias(
        "host=h port=5433 user=u password=p dbname=d connect_timeout=7",
        OPTIONS={"connect_timeout": "7", "isolation_level": 3, "assume_role": "the owner"},
    )
    assert parameters_of(connections[alias]) == {
        "host": "h",
        "port": "5433",
        "user": "u",
        "password": "p",
        "dbname": "d",
        "connect_timeout": "7",
        "options": r"-c role=the\ owner",
    }


def test_options_of_django_are_not_passed_on() -> None:
    given = ["--settings", "a.b", "worker", "--pythonpath=x", "--queues", "mail", "--settings=a.b"]
    assert without_djangos(given) == ["worker", "--queues", "mail"]


@pytest.fixture
def _log() -> Iterator[None]:
    """The log as it was: a command sends it to stderr."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_log")
def test_a_command_can_be_called(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("procrastinate", "connectors")
    assert "DjangoConnector" in capsys.readouterr().out


@pytest.mark.usefixtures("_log")
def test_a_command_that_fails_says_with_which_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="exit code 2"):
        call_command("procrastinate", "nonsense")
    assert "No such command 'nonsense'" in capsys.readouterr().err


class Connector:
    pool: Any = None

    async def open_async(self, pool: Any = None) -> None:
        self.pool = pool


async def test_a_workers_connector_made_before_the_test_database_is_refused() -> None:
    alias = new_alias("host=nowhere dbname=shop")
    connector: Any = Connector()
    _refuse_another_database(connector, alias)
    await connector.open_async("a pool")
    assert connector.pool == "a pool"
    connections[alias].settings_dict["NAME"] = "test_shop"
    with pytest.raises(ConfigurationError, match="leads to another database"):
        await connector.open_async("another")
    assert connector.pool == "a pool"


_LATER = """
try:
    from django.tasks import task
except ImportError:  # before Django 6.0
    from django_tasks import task

@task
def three():
    return 3
"""
_WORKER = """
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "nowhere"}},
    INSTALLED_APPS=["procrastinate_django"],
    PROCRASTINATE={"IMPORT_PATHS": ["later"]},
    TASKS={"default": {"BACKEND": "procrastinate_django.ProcrastinateBackend"}},
)
from procrastinate_django.worker_app import app
print("later.three" in app.tasks)
"""


def test_workers_know_djangos_tasks_of_import_paths(tmp_path: Any) -> None:
    (tmp_path / "later.py").write_text(_LATER)
    done = subprocess.run(
        [sys.executable, "-c", _WORKER], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
