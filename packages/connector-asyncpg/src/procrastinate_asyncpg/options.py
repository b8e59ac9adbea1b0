"""The connector's arguments: whose each is, and what it may be."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import asyncpg

from procrastinate.connector_tools import limits, urls
from procrastinate.connector_tools.sizes import check_seconds, check_sizes
from procrastinate.errors import ConfigurationError, InvalidOption
from procrastinate_asyncpg.connecting import ConnectOptions

URL_OPTIONS: dict[str, Callable[[str], Any]] = {
    "min_size": int,
    "max_size": int,
    "pool_timeout": float,
    "schema": str,
    "listen_dsn": str,
}
#: Ours to say, or of no use: the event loop is the running one, and rows are tuples.
_NOT_TAKEN = ("loop", "connection_class", "record_class")
#: What libpq calls it, and asyncpg not.
_OTHER_NAMES = {"dbname": "database", "sslmode": "ssl", "connect_timeout": "timeout"}
#: Parameters of libpq that asyncpg would send to the server as settings, which it does not know.
_OF_LIBPQ = frozenset(
    {
        "channel_binding",
        "client_encoding",
        "gssencmode",
        "keepalives",
        "load_balance_hosts",
        "require_auth",
        "requirepeer",
        "sslcompression",
        "sslsni",
    }
)


@dataclass(frozen=True)
class Options:
    """What `AsyncpgConnector` was given, checked."""

    connect: ConnectOptions
    listen: ConnectOptions | None
    min_size: int
    max_size: int
    pool_timeout: float | None
    #: Whether any argument says where to connect to.
    names_a_database: bool

    def for_sibling(self, max_connections: int, connect_timeout: float | None) -> Options:
        """Return the options of a connector beside this one, with a pool of another size."""
        connect = self.connect
        if connect_timeout is not None:
            connect = replace(connect, timeout=min(connect.timeout, connect_timeout))
        return replace(self, connect=connect, min_size=0, max_size=max_connections)


def read_options(
    *,
    dsn: Any,
    listen_dsn: Any,
    min_size: Any,
    max_size: Any,
    pool_timeout: Any,
    arguments: Mapping[str, Any],
) -> Options:
    """Check the arguments. Raises `InvalidOption`, `ConfigurationError` for a malformed DSN."""
    check_sizes(least=("min_size", min_size), most=("max_size", max_size))
    if pool_timeout is not None:
        check_seconds("pool_timeout", pool_timeout)
    _check_names(arguments)
    _check_encoding(arguments.get("server_settings"))
    return Options(
        connect=_connect_options(dsn, arguments),
        listen=None if listen_dsn is None else _connect_options(listen_dsn, {}),
        min_size=min_size,
        max_size=max_size,
        pool_timeout=pool_timeout,
        names_a_database=dsn is not None or bool(arguments),
    )


def _connect_options(dsn: Any, given: Mapping[str, Any]) -> ConnectOptions:
    arguments = dict(given)
    _check_port(given.get("port"))
    read: dict[str, str] = {}
    if dsn is not None:
        arguments["dsn"], read = _read_dsn(dsn)
    named = {**read, **{_LIBPQ.get(name, name): value for name, value in given.items()}}
    missing = limits.missing({*named, *(["connect_timeout"] if "timeout" in given else [])})
    timeout = arguments.pop("timeout", read.get("connect_timeout", missing.get("connect_timeout")))
    prepares = arguments.pop("statement_cache_size", 1) != 0
    return ConnectOptions(
        arguments=arguments,
        shown=urls.shown(named),
        timeout=_seconds(
            "timeout", limits.LIMITS["connect_timeout"] if timeout is None else timeout
        ),
        limits=_socket_limits({**missing, **read}),
        prepares=prepares,
    )


_LIBPQ = {"database": "dbname"}


def _check_port(port: Any) -> None:
    for each in port if isinstance(port, list | tuple) else [port]:
        urls.check_ports(None if each is None else str(each))


_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S*)")


def _as_url(dsn: str) -> str:
    """Return a URL for libpq's ``host=... user=...``, which asyncpg does not take."""
    if "://" in dsn or "=" not in dsn:
        return dsn
    if _PAIR.sub("", dsn).strip():
        raise ConfigurationError("dsn is neither a URL nor libpq's host=... user=... dbname=...")
    pairs = [
        (name, re.sub(r"\\(.)", r"\1", value[1:-1] if value.startswith("'") else value))
        for name, value in _PAIR.findall(dsn)
    ]
    return "postgresql://?" + urlencode(pairs, quote_via=quote)


def _read_dsn(dsn: Any) -> tuple[str, dict[str, str]]:
    """Return what asyncpg takes, and the parameters by libpq's names."""
    if not isinstance(dsn, str):
        raise InvalidOption("dsn= is a URL like postgresql://user@host/database")
    dsn = _as_url(dsn)
    read = urls.read_url(dsn)
    base, _, query = urls.quoted_url(urls.libpq_url(dsn)).partition("?")
    kept = [
        (name, value)
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name not in _OF_LIBPQ and name not in limits.LIMITS
    ]
    kept = [
        ("application_name" if name == "fallback_application_name" else name, value)
        for name, value in kept
    ]
    return base + ("?" + urlencode(kept, quote_via=quote) if kept else ""), read


def _socket_limits(read: Mapping[str, Any]) -> dict[str, int]:
    if str(read.get("keepalives")) == "0":
        return {}
    found = {name: read[name] for name in limits.LIMITS if name in read}
    found.pop("connect_timeout", None)
    try:
        return {name: int(value) for name, value in found.items()}
    except ValueError:
        pass
    raise ConfigurationError(f"one of {', '.join(found)} in the URL is not a whole number")


def _check_names(arguments: Mapping[str, Any]) -> None:
    known = set(inspect.signature(asyncpg.connect).parameters) - set(_NOT_TAKEN)
    for name in arguments:
        if name in _OTHER_NAMES:
            raise InvalidOption(f"asyncpg has no argument {name}=: write {_OTHER_NAMES[name]}=")
        if name not in known:
            raise InvalidOption(
                f"AsyncpgConnector has no argument {name}=: it takes those of asyncpg.connect(),"
                " json_dumps, json_loads, schema, listen_dsn, min_size, max_size and pool_timeout"
            )


def _check_encoding(settings: Any) -> None:
    """Refuse another encoding than asyncpg asks for: it reads and writes UTF8, whatever is set."""
    for name, value in dict(settings or {}).items():
        if str(name).lower() != "client_encoding":
            continue
        if str(value).strip("'").replace("-", "").upper() not in ("UTF8", "UNICODE"):
            raise InvalidOption(
                f"server_settings has client_encoding={value!r}, in which not every text can be"
                " read: leave it out, as asyncpg asks for UTF8"
            )


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not (0 < seconds < math.inf):
        said = "" if isinstance(value, str) else f"={value!r}"  # a text may come from the URL
        raise InvalidOption(f"{name}{said} is not a number of seconds above 0")
    return seconds
