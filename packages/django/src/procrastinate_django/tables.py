"""Procrastinate's tables as Django's migrations make them.

Core's migrations run on two connections of their own, some of them outside of any transaction and
with locks that are tried again, so that jobs go on meanwhile. So Django only calls them.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from procrastinate import App
from procrastinate.errors import ProcrastinateException
from procrastinate_django.conf import read_conf
from procrastinate_django.project import worker_connector


def apply_schema(apps: Any, schema_editor: Any) -> None:
    """Create the tables, or bring them up to date, in the database that holds the jobs.

    What is recorded there as done is not done again. Raises `CommandError`.
    """
    if schema_editor.connection.alias != read_conf().database:
        return
    try:
        with App(connector=worker_connector()).open() as app:
            app.schema_manager.apply_schema()
    except ProcrastinateException as exc:
        raise CommandError(str(exc)) from exc
