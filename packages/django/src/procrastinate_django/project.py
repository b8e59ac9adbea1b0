"""The two apps of a Django project: that of its code, and that of its workers."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

from django.db import connections

from procrastinate import App, connectors
from procrastinate.connector import AsyncConnector
from procrastinate.errors import ConfigurationError
from procrastinate_django import drivers
from procrastinate_django.conf import read_conf
from procrastinate_django.connections import ConnectionCare
from procrastinate_django.connector import DjangoConnector, check_database
from procrastinate_django.declared import register_all

#: What Django gives to its driver's connect() beside libpq's parameters.
_NOT_LIBPQS = {
    *("autocommit", "client_encoding", "context", "cursor_factory", "prepare_threshold"),
    *("connection_factory", "row_factory"),
}
#: For workers: the connector, its package, and the driver's extra.
_FOR_WORKERS = {"psycopg": "procrastinate_psycopg", "aiopg": "procrastinate_aiopg"}


@functools.cache
def project_app() -> App:
    """Return the app of the project's code, on Django's connection.

    It is made once, from the setting ``PROCRASTINATE``. Raises ``ImproperlyConfigured``, and
    `LoadFromPathError` for an app of the project's own that is not there.
    """
    conf = read_conf()
    if conf.app is not None:
        return App.from_path(conf.app)
    return App(
        connector=DjangoConnector(),
        import_paths=conf.import_paths,
        worker_defaults=conf.worker_defaults,
        periodic_defaults=conf.periodic_defaults,
        observers=[ConnectionCare(), *conf.observers],
    )


@functools.cache
def worker_app() -> App:
    """Return the app of the project's workers and commands: the same tasks, connections of its own.

    Raises `ConfigurationError` if no connector for workers is installed, and what importing the
    modules of ``IMPORT_PATHS`` raises: they may have tasks of Django's, which are registered here.
    """
    app = project_app()
    app.perform_import_paths()
    register_all(app)
    cares = any(isinstance(each, ConnectionCare) for each in app.observers)
    return app.with_connector(worker_connector(), observers=[] if cares else [ConnectionCare()])


def worker_connector() -> AsyncConnector:
    """Return a new connector for workers, to the database that holds the jobs."""
    of_app = project_app().connector
    if isinstance(of_app, AsyncConnector):
        return of_app
    alias = of_app.alias if isinstance(of_app, DjangoConnector) else read_conf().database
    made: Any = connector_to(
        connections[alias],
        schema=of_app.schema,
        json_dumps=of_app.json_dumps,
        json_loads=of_app.json_loads,
    )
    _refuse_another_database(made, alias)
    if isinstance(of_app, DjangoConnector):
        made.worded = of_app.worded
    return made


def _refuse_another_database(connector: Any, alias: str) -> None:
    """Let a connector raise `ConfigurationError` when it is opened, if Django has another database.

    Tests give a connection of Django's another database. A worker whose connector was made before
    would run the jobs of the project's own one, and their tasks would write to that of the tests.
    """
    place, open_async = _place(alias), connector.open_async

    async def open_there(pool: Any = None) -> None:
        if _place(alias) != place:
            raise ConfigurationError(
                f"Django's connection {alias!r} leads to another database than when"
                " procrastinate_django.worker_app was imported, as in tests: import it after that,"
                " or run call_command('procrastinate', 'worker', '--one-shot')"
            )
        await open_async(pool)

    connector.open_async = open_there


def _place(alias: str) -> list[Any]:
    found = connections[alias].settings_dict
    return [found[each] for each in ("NAME", "HOST", "PORT")]


def connector_to(wrapper: Any, **options: Any) -> AsyncConnector:
    """Return a new asynchronous connector to where a connection of Django's leads.

    Raises `ConfigurationError` if none is installed, or for another database than PostgreSQL.
    """
    made: Any = connectors.get(_name_for_workers())(**parameters_of(wrapper), **options)
    return made


def _name_for_workers() -> str:
    """Return the connector of Django's own driver if that is installed, else the other one."""
    names = ["psycopg", "aiopg"] if drivers.uses_psycopg3() else ["aiopg", "psycopg"]
    for name in names:
        if importlib.util.find_spec(_FOR_WORKERS[name]) is not None:
            return name
    extra = "psycopg" if drivers.uses_psycopg3() else "psycopg2"
    raise ConfigurationError(
        f"a worker needs an asynchronous connector: run `pip install"
        f" 'procrastinate-django[{extra}]'`"
    )


def parameters_of(wrapper: Any) -> dict[str, Any]:
    """Return where a connection of Django's leads, by libpq's names."""
    check_database(wrapper)
    given = wrapper.get_connection_params()
    found = {name: value for name, value in given.items() if name not in _NOT_LIBPQS}
    role = wrapper.settings_dict["OPTIONS"].get("assume_role")
    if role:
        quoted = role.replace("\\", r"\\").replace(" ", r"\ ")
        found["options"] = f"{found.get('options', '')} -c role={quoted}".strip()
    return found
