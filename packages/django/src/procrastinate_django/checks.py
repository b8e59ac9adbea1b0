"""System checks of the setting ``PROCRASTINATE``, of what it needs, and of the tables.

Only `check_tables` asks a database, so it runs if one is named: ``manage.py check --database
default``, and at the begin of ``migrate``. Hence missing tables are a warning: with an error,
``migrate`` could not make them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import DEFAULT_DB_ALIAS, connections

from procrastinate import App
from procrastinate.errors import (
    ConfigurationError,
    ProcrastinateException,
    SchemaForeign,
    SchemaNotApplied,
    SchemaOutdated,
)
from procrastinate_django import conf, drivers
from procrastinate_django.connector import DjangoConnector, check_database
from procrastinate_django.project import project_app

#: The settings of Procrastinate 3, and what says the same now.
_OLD: Mapping[str, str] = {
    "PROCRASTINATE_AUTODISCOVER_MODULE_NAME": "PROCRASTINATE = {'AUTODISCOVER': ...}",
    "PROCRASTINATE_DATABASE_ALIAS": "PROCRASTINATE = {'DATABASE': ...}",
    "PROCRASTINATE_IMPORT_PATHS": "PROCRASTINATE = {'IMPORT_PATHS': [...]}",
    "PROCRASTINATE_ON_APP_READY": "the ready() of an AppConfig of yours, which uses"
    " procrastinate_django.app, or PROCRASTINATE = {'APP': ...} with an app that you make",
    "PROCRASTINATE_PERIODIC_DEFAULTS": "PROCRASTINATE = {'PERIODIC_DEFAULTS': {...}}",
    "PROCRASTINATE_READONLY_MODELS": "nothing: the model of jobs is always for reading",
    "PROCRASTINATE_WORKER_DEFAULTS": "PROCRASTINATE = {'WORKER_DEFAULTS': {...}}",
}


#: The paths of the backend for Django's tasks.
_BACKENDS = (
    "procrastinate_django.ProcrastinateBackend",
    "procrastinate_django.backend.ProcrastinateBackend",
)
#: What an entry in ``TASKS`` may have.
_OF_BACKENDS = ("BACKEND", "QUEUES", "OPTIONS")


def check_tasks(app_configs: Any = None, **options: Any) -> list[CheckMessage]:
    """Return what is wrong with the entries of our backend in ``TASKS``.

    Django before 6.0 does not ask backends, and no release looks at names beside ``BACKEND``.
    """
    tasks = getattr(settings, "TASKS", None)
    entries = tasks.items() if isinstance(tasks, Mapping) else ()
    return [
        message
        for alias, entry in entries
        if isinstance(entry, Mapping) and entry.get("BACKEND") in _BACKENDS
        for message in _of_backend(alias, entry)
    ]


def _of_backend(alias: str, entry: Mapping[str, Any]) -> list[CheckMessage]:
    hint = "What is said of the queue stands in PROCRASTINATE, and of a task above it, by job()."
    found: list[CheckMessage] = []
    if options := entry.get("OPTIONS"):
        names = ", ".join(map(repr, options)) if isinstance(options, Mapping) else repr(options)
        said = f"the backend {alias!r} of TASKS takes no OPTIONS, and has {names}"
        found.append(Error(said, hint=hint, id="procrastinate_django.E011"))
    for name in entry:
        if name not in _OF_BACKENDS:
            said = (
                f"the backend {alias!r} of TASKS has no option {name!r}: it takes BACKEND, QUEUES"
            )
            found.append(Error(said, hint=hint, id="procrastinate_django.E012"))
    return found


def check_project(app_configs: Any = None, **options: Any) -> list[CheckMessage]:
    """Return what is wrong with the project's queue. It asks no database."""
    old = _of_old_settings()
    found = conf.problems()
    if found:
        return [*old, *(Error(each, id="procrastinate_django.E001") for each in found)]
    return [*old, *_of_database(), *_of_app(), *_of_import_paths()]


def check_tables(
    app_configs: Any = None, databases: Collection[str] | None = None, **options: Any
) -> list[CheckMessage]:
    """Return what is wrong with the tables of the queue, if their database is one of these."""
    if conf.problems() or _of_database() or _of_app():  # said by `check_project`
        return []
    own = conf.read_conf().app
    connector = DjangoConnector() if own is None else project_app().connector
    if not isinstance(connector, DjangoConnector) or connector.alias not in (databases or ()):
        return []
    try:
        if App(connector=connector).check_connection():
            return []
    except ProcrastinateException as exc:
        return [_of_tables(exc, connector.alias)]
    return [_to_migrate("there are no tables of the queue", connector.alias)]


def _of_tables(exc: ProcrastinateException, alias: str) -> CheckMessage:
    if isinstance(exc, SchemaForeign):
        return Error(
            f"the database {alias!r} has tables of Procrastinate 3 or older, and they have the"
            " names of this release's",
            hint="Give this release's a schema of their own: PROCRASTINATE = {'SCHEMA': 'jobs'}."
            " The old ones stay as they are; `manage.py procrastinate import` takes over their"
            " jobs.",
            id="procrastinate_django.E005",
        )
    if isinstance(exc, SchemaNotApplied | SchemaOutdated):
        return _to_migrate(str(exc), alias)
    return Error(str(exc), id="procrastinate_django.E006")


def _to_migrate(said: str, alias: str) -> CheckMessage:
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database={alias}"
    return Warning(
        f"the database {alias!r} is not ready: {said}",
        hint=f"`python manage.py migrate{database}` makes the tables, or brings them up to date."
        " If it finds nothing to do, as after `migrate --fake`, `python manage.py procrastinate"
        " schema --apply` makes them.",
        id="procrastinate_django.W002",
    )


def _of_old_settings() -> list[CheckMessage]:
    return [
        Error(
            f"the setting {name} is of Procrastinate 3, and nothing reads it",
            hint=f"Instead: {instead}.",
            id="procrastinate_django.E004",
        )
        for name, instead in _OLD.items()
        if hasattr(settings, name)
    ]


def _of_database() -> list[CheckMessage]:
    try:
        check_database(connections[conf.read_conf().database])
        drivers.driver()
    except ConfigurationError as exc:
        return [Error(str(exc), id="procrastinate_django.E002")]
    return []


def _of_import_paths() -> list[CheckMessage]:
    return [
        Error(
            f"there is no module {path!r}, which PROCRASTINATE['IMPORT_PATHS'] names",
            id="procrastinate_django.E007",
        )
        for path in conf.read_conf().import_paths
        if not _is_there(path)
    ]


def _is_there(path: Any) -> bool:
    """Whether there is such a module. What breaks in its package is for its import to tell."""
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError as exc:
        return exc.name is None or not f"{path}.".startswith(f"{exc.name}.")
    except Exception:
        return isinstance(path, str) and bool(path.strip("."))


def _of_app() -> list[CheckMessage]:
    if conf.read_conf().app is None:
        return []
    try:
        app = project_app()
    except ProcrastinateException as exc:
        return [Error(str(exc), id="procrastinate_django.E003")]
    if isinstance(app.connector, DjangoConnector):
        return []
    return [
        Warning(
            f"the app of PROCRASTINATE['APP'] has a {type(app.connector).__name__}, so its jobs are"
            " no part of transaction.atomic()",
            hint="Give it a procrastinate_django.DjangoConnector().",
            id="procrastinate_django.W001",
        )
    ]
