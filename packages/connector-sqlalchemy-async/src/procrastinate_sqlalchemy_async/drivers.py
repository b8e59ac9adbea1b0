"""Which driver an engine stands on."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib import util
from typing import Any, cast

from sqlalchemy.engine.interfaces import Dialect

from procrastinate.errors import ConfigurationError, InvalidOption
from procrastinate_sqlalchemy_async.leases import Driver

#: By SQLAlchemy's name of the driver, the faster first.
_DRIVERS: Mapping[str, tuple[str, str]] = {
    "asyncpg": ("procrastinate_sqlalchemy_async.over_asyncpg", "OverAsyncpg"),
    "psycopg": ("procrastinate_sqlalchemy_async.over_psycopg", "OverPsycopg"),
}
_INSTALL = (
    "run `pip install 'procrastinate-sqlalchemy-async[asyncpg]'` or"
    " `pip install 'procrastinate-sqlalchemy-async[psycopg]'`"
)
_LIBPQ = (
    "the driver psycopg finds no libpq, PostgreSQL's client library: run `pip install"
    " 'psycopg[binary]'`, which brings one, or install your system's libpq"
)


def driver_of(dialect: Dialect | type[Dialect], what: str) -> type[Driver]:
    """Return what runs queries on connections of a dialect.

    Raises `InvalidOption` for a dialect that is synchronous, or of another database or driver.
    """
    name = f"{dialect.name}+{dialect.driver}"
    if dialect.name != "postgresql" or dialect.driver not in _DRIVERS or not dialect.is_async:
        hint = (
            "write postgresql+asyncpg:// or postgresql+psycopg:// in the URL, and make the engine"
            " by create_async_engine()"
        )
        raise InvalidOption(f"{what} uses SQLAlchemy's dialect {name}: {hint}")
    return load(dialect.driver)


def load(name: str) -> type[Driver]:
    """Import what runs queries over a driver. Raises `ConfigurationError` if that is missing."""
    module, attribute = _DRIVERS[name]
    try:
        return cast(type[Driver], getattr(importlib.import_module(module), attribute))
    except ImportError as exc:
        if name == "psycopg" and util.find_spec(name) is not None:
            raise ConfigurationError(f"{_LIBPQ} ({' '.join(str(exc).split())})") from exc
        raise ConfigurationError(
            f"the driver {name} cannot be imported ({exc}): {_INSTALL}"
        ) from exc


def default_url() -> str:
    """Return an SQLAlchemy URL without a database, for the driver that is installed."""
    for name in _DRIVERS:
        if util.find_spec(name) is not None:
            return f"postgresql+{name}://"
    raise ConfigurationError(f"SQLAlchemy needs an asynchronous driver for PostgreSQL: {_INSTALL}")


def own_arguments(
    driver: str, given: Mapping[str, Any], limits: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a connection of ours is made with besides what the user gave.

    ``limits`` are those of `procrastinate.connector_tools.limits`.
    """
    if driver == "psycopg":
        return {**limits, "client_encoding": "UTF8"}
    seconds = limits.get("connect_timeout")  # the others: `set_keepalive`
    return {} if seconds is None or "timeout" in given else {"timeout": float(seconds)}
