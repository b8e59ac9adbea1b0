"""System checks of the setting ``PROCRASTINATE`` and of what it needs."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.db import connections

from procrastinate.errors import ConfigurationError, ProcrastinateException
from procrastinate_django import conf, drivers
from procrastinate_django.connector import DjangoConnector, check_database


def check_project(app_configs: Any = None, **options: Any) -> list[CheckMessage]:
    """Return what is wrong with the project's queue. It asks no database."""
    found = conf.problems()
    if found:
        return [Error(each, id="procrastinate_django.E001") for each in found]
    return [*_of_database(), *_of_app()]


def _of_database() -> list[CheckMessage]:
    try:
        check_database(connections[conf.read_conf().database])
        drivers.driver()
    except ConfigurationError as exc:
        return [Error(str(exc), id="procrastinate_django.E002")]
    return []


def _of_app() -> list[CheckMessage]:
    from procrastinate_django.project import project_app

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
