"""The connectors' arguments: whose each is, what it may be, and what connections are made with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from procrastinate.connector_tools import limits, urls
from procrastinate.connector_tools.sizes import check_seconds, check_sizes
from procrastinate.errors import ConfigurationError, InvalidOption

URL_OPTIONS: dict[str, Callable[[str], Any]] = {
    "min_size": int,
    "max_size": int,
    "pool_timeout": float,
    "schema": str,
}

_POOL = (
    "make the psycopg_pool with it yourself, and hand that over: await app.open_async(pool), or"
    " app.open(pool) of a synchronous connector"
)
#: Arguments that other releases, psycopg and psycopg_pool know, and what to write here.
_ELSEWHERE = {
    "kwargs": (
        "that was Procrastinate 3's. Write its entries as arguments of their own, as in"
        " PsycopgConnector(host=..., dbname=...)"
    ),
    "pool_factory": f"that was Procrastinate 3's: {_POOL}",
    "dsn": "psycopg 3 calls it conninfo=",
    "listen_dsn": "psycopg 3 calls it listen_conninfo=",
    "minsize": "psycopg 3 calls it min_size=",
    "maxsize": "psycopg 3 calls it max_size=",
    "minconn": "psycopg 3 calls it min_size=",
    "maxconn": "psycopg 3 calls it max_size=",
    "timeout": "write pool_timeout= or connect_timeout=",
    **dict.fromkeys(
        ("autocommit", "prepare_threshold", "row_factory", "cursor_factory", "context"),
        "it would change nothing here, as statements are run without it. Leave it out",
    ),
    **dict.fromkeys(
        (
            *("configure", "check", "reset", "connection_class", "name", "open", "num_workers"),
            *("max_waiting", "max_lifetime", "max_idle", "reconnect_timeout", "reconnect_failed"),
        ),
        _POOL,
    ),
}
_OF_SQLALCHEMY = re.compile(r"\w+\+\w+://")


@dataclass(frozen=True)
class Options:
    """What a connector was given, checked. ``pool_timeout`` is in seconds, None for ever."""

    parameters: Mapping[str, Any]  # by libpq's names
    min_size: int
    max_size: int
    pool_timeout: float | None

    @property
    def shown(self) -> str:
        """What may be shown of the connection's parameters."""
        return urls.shown(self.parameters)

    def for_one_user(self, connect_timeout: float | None = None) -> dict[str, Any]:
        """Return the arguments for a synchronous connector to the same database.

        It makes connections when they are needed: with ``min_size`` of them at once, each of a
        worker's companions, which use one, would hold as many.
        """
        return {
            **limits.missing(self.parameters, connect_timeout=connect_timeout),
            **self.parameters,
            "min_size": min(self.min_size, 1),
            "max_size": self.max_size,
            "pool_timeout": self.pool_timeout,
        }


def read_options(
    conninfo: Any, *, min_size: Any, max_size: Any, pool_timeout: Any, arguments: Mapping[str, Any]
) -> Options:
    """Check the arguments.

    Raises `InvalidOption`, and `ConfigurationError` for a malformed connection string.
    """
    check_sizes(least=("min_size", min_size), most=("max_size", max_size))
    if pool_timeout is not None:
        check_seconds("pool_timeout", pool_timeout)
    _check_names(arguments)
    parameters = {**read_conninfo(conninfo), **_given(arguments)}
    read_conninfo(_joined(parameters))  # libpq's own word on their values
    return Options(parameters, min_size, max_size, pool_timeout)


def read_conninfo(conninfo: Any, name: str = "conninfo") -> dict[str, Any]:
    """Return libpq's reading of a connection string, without connecting.

    Raises `InvalidOption` for what is no string, `ConfigurationError` for a malformed one.
    """
    if not isinstance(conninfo, str):
        raise InvalidOption(f"{name} is a connection string, not a {type(conninfo).__qualname__}")
    if _OF_SQLALCHEMY.match(conninfo):
        raise ConfigurationError(
            f"{name} has the form of SQLAlchemy's URLs: write postgresql:// in front of it"
        )
    urls.check_at_signs(conninfo)
    try:
        read = conninfo_to_dict(conninfo)
    except (psycopg.Error, ValueError) as exc:
        error = urls.malformed(exc)
    else:
        urls.check_ports(str(read.get("port") or ""))
        return dict(read)
    raise error  # outside of the handler: no context that quotes it


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _joined(parameters: Mapping[str, Any]) -> str:
    def value(given: Any) -> str:
        return "'" + str(given).replace("\\", "\\\\").replace("'", "\\'") + "'"

    return " ".join(f"{name}={value(given)}" for name, given in parameters.items())


def _check_names(arguments: Mapping[str, Any]) -> None:
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in arguments:
        if name in known:
            continue
        if name in _ELSEWHERE:
            raise InvalidOption(f"{name}= is no argument of this connector: {_ELSEWHERE[name]}")
        raise InvalidOption(f"unknown argument {name!r}: it is neither the connector's nor libpq's")
