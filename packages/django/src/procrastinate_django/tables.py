"""Procrastinate's tables as Django's migrations make them.

Core's migrations run on two connections of their own, some of them outside of any transaction and
with locks that are tried again, so that jobs go on meanwhile. So Django only calls them.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.db import connections

from procrastinate import App
from procrastinate.errors import ProcrastinateException, SchemaForeign, SchemaOutdated
from procrastinate_django import conf
from procrastinate_django.connector import DjangoConnector
from procrastinate_django.project import connector_to


def apply_schema(apps: Any, schema_editor: Any) -> None:
    """Create the tables, or bring them up to date, in the database that holds the jobs.

    What is recorded there as done is not done again. Raises `CommandError`.
    """
    if schema_editor.connection.alias == conf.read_conf().database:
        _apply(schema_editor.connection)


def renew_schema(sender: Any, using: str, **given: Any) -> None:
    """Bring tables and functions up to date at the end of each ``migrate``, if they are not.

    A release of core that changes a function, or has a migration more, is no new migration of
    Django's. What is not there is not made, and other problems are told by the checks. Raises
    `CommandError`.
    """
    if conf.problems() or using != conf.read_conf().database or not _can_ask(using):
        return
    try:
        App(connector=DjangoConnector()).check_connection()
    except SchemaOutdated:
        _apply(connections[using])
    except ProcrastinateException:
        return


def _can_ask(alias: str) -> bool:
    """Return whether tables can be changed: not in a transaction, which may have locked them."""
    return connections[alias].vendor == "postgresql" and not connections[alias].in_atomic_block


def _apply(wrapper: Any) -> None:
    try:
        connector = connector_to(wrapper, schema=conf.read_conf().schema)
        with App(connector=connector).open() as app:
            app.schema_manager.apply_schema()
    except SchemaForeign as exc:
        raise CommandError(
            f"{exc}. (In Django: set PROCRASTINATE = {{'SCHEMA': 'jobs'}}, and migrate again)"
        ) from exc
    except ProcrastinateException as exc:
        raise CommandError(str(exc)) from exc
