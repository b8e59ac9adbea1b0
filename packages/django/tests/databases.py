"""Databases of the tests as aliases of Django's."""

from __future__ import annotations

import itertools
import shlex
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.db import connections

_numbers = itertools.count(1)


def parameters_of(dsn: str) -> dict[str, str]:
    """Return what a connection string says, by libpq's names."""
    if "://" not in dsn:
        return dict(each.split("=", 1) for each in shlex.split(dsn))
    parts = urlsplit(dsn)
    found = {
        "host": parts.hostname,
        "port": parts.port and str(parts.port),
        "user": parts.username and unquote(parts.username),
        "password": parts.password and unquote(parts.password),
        "dbname": unquote(parts.path.lstrip("/")),
        **dict(parse_qsl(parts.query)),
    }
    return {name: value for name, value in found.items() if value}


def settings_of(dsn: str, **more: Any) -> dict[str, Any]:
    """Return the entry of ``DATABASES`` for a connection string."""
    options = parameters_of(dsn)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
    entry: dict[str, Any] = {key: options.pop(name, "") for key, name in names.items()}
    entry["PORT"] = options.pop("port", "")
    entry |= {"ENGINE": "django.db.backends.postgresql", "OPTIONS": options, **more}
    return connections.configure_settings({"default": entry})["default"]


def new_alias(dsn: str, **more: Any) -> str:
    """Return a new alias that leads to a database."""
    alias = f"test_{next(_numbers)}"
    connections.settings[alias] = settings_of(dsn, **more)
    return alias
