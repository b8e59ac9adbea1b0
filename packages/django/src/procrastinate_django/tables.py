"""Procrastinate's tables as Django's migrations make them.

Core's migrations run on two connections of their own, some of them outside of any transaction and
with locks that are tried again, so that jobs go on meanwhile. So Django only calls them.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from procrastinate import App
from procrastinate.errors import ProcrastinateException, SchemaForeign
from procrastinate_django.conf import read_conf
from procrastinate_django.project import connector_to


def apply_schema(apps: Any, schema_editor: Any) -> None:
    """Create the tables, or bring them up to date, in the database that holds the jobs.

    What is recorded there as done is not done again. Raises `CommandError`.
    """
    conf = read_conf()
    if schema_editor.connection.alias != conf.database:
        return
    try:
        connector = connector_to(schema_editor.connection, schema=conf.schema)
        with App(connector=connector).open() as app:
            app.schema_manager.apply_schema()
    except SchemaForeign as exc:
        raise CommandError(
            f"{exc}. (In Django: set PROCRASTINATE = {{'SCHEMA': 'jobs'}}, and migrate again)"
        ) from exc
    except ProcrastinateException as exc:
        raise CommandError(str(exc)) from exc
