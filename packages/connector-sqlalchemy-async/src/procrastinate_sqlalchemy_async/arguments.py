"""What URLs and ``connect_args`` may say, found before a driver reads them.

asyncpg raises TypeError for an option of libpq's, and only when it connects.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import URL

from procrastinate.connector_tools import urls
from procrastinate.errors import ConfigurationError, InvalidOption
from procrastinate_sqlalchemy_async import drivers

#: libpq's words, and asyncpg's.
_RENAMED = {"sslmode": "ssl", "connect_timeout": "timeout", "dbname": "database"}
#: What the server is told when a connection begins.
_SETTINGS = {
    "application_name": "application_name",
    "fallback_application_name": "application_name",
    "options": "options",
}
#: What SQLAlchemy takes for itself.
_OF_SQLALCHEMY = {
    "async_creator_fn",
    "async_fallback",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
}
#: The arguments that no text can be.
_NO_TEXT = {
    "async_creator_fn",
    "connection_class",
    "loop",
    "prepared_statement_name_func",
    "record_class",
    "server_settings",
}
_NUMBERS: Mapping[str, Callable[[str], float]] = {
    "timeout": float,
    "command_timeout": float,
    "statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "max_cacheable_statement_size": int,
    "prepared_statement_cache_size": int,
}


def read_arguments(url: URL, given: Mapping[str, Any]) -> tuple[URL, dict[str, Any]]:
    """Return a URL and ``connect_args`` that the driver takes: asyncpg's names for libpq's words.

    Raises `InvalidOption` for an option that asyncpg does not have, and `ConfigurationError` for a
    host, port or number that cannot be one. No message shows a value.
    """
    connect_args = dict(given)
    if url.get_driver_name() == "asyncpg":
        url, of_url = _without_libpqs(url)
        settings = {**of_url.pop("server_settings"), **(given.get("server_settings") or {})}
        connect_args = {**of_url, **connect_args}
        if settings:
            connect_args["server_settings"] = settings
        _check_names(connect_args)
        dsn = connect_args.get("dsn")
        if isinstance(dsn, str):
            urls.read_url(dsn)
            connect_args["dsn"] = urls.quoted_url(dsn)
    _check_place({**_options(url), **connect_args})
    return url, connect_args


def _without_libpqs(url: URL) -> tuple[URL, dict[str, Any]]:
    kept: dict[str, Any] = {}
    of_url: dict[str, Any] = {"server_settings": {}}
    known = _known() - _NO_TEXT
    for said, value in url.query.items():
        last = value if isinstance(value, str) else value[-1]
        name = _RENAMED.get(said, said)
        if said in _SETTINGS:
            of_url["server_settings"].setdefault(_SETTINGS[said], last)
        elif name in _NUMBERS:
            of_url[name] = _number(said, last)
        elif name not in known:
            raise InvalidOption(_unknown(said))
        elif name == said:
            kept[name] = value
        else:
            of_url[name] = last
    return url.set(query=kept), of_url


def _known() -> set[str]:
    drivers.load("asyncpg")  # says what to install
    import asyncpg

    return {*inspect.signature(asyncpg.connect).parameters, *_OF_SQLALCHEMY}


def _unknown(name: str) -> str:
    return (
        f"asyncpg has no option {name[:40]!r}: leave it out, or give it by connect_args= as an"
        " argument of asyncpg.connect() (settings of the server: server_settings)"
    )


def _check_names(connect_args: Mapping[str, Any]) -> None:
    if "async_creator_fn" in connect_args:  # which may take anything
        return
    for name in sorted(set(connect_args) - _known()):
        raise InvalidOption(_unknown(name))


def _number(name: str, text: str) -> float:
    try:
        return _NUMBERS[_RENAMED.get(name, name)](text)
    except ValueError:
        pass
    raise ConfigurationError(f"{name} in the URL is not a number")


def _options(url: URL) -> dict[str, Any]:
    try:
        return dict(url.get_dialect()().create_connect_args(url)[1])
    except (sa_exc.ArgumentError, ValueError, TypeError):
        pass
    raise ConfigurationError(
        "the hosts and ports of the URL cannot be read: write ?host=one:5432&host=two:5432"
    )


def _check_place(options: Mapping[str, Any]) -> None:
    for port in _each(options.get("port")):
        urls.check_ports(str(port))
    for host in _each(options.get("host")):
        urls.check_host(str(host))


def _each(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
