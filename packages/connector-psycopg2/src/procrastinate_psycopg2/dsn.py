"""Connection strings: URLs turned into libpq's, mistakes found before anything is connected.

No message may hold a password. libpq quotes pieces of a string that it cannot read, and a
password that was not percent-encoded ends up in the host, the port or the database. So what
came out of a string is never shown when it is wrong, and those errors carry no cause.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg2
from psycopg2 import extensions

from procrastinate.errors import ConfigurationError, InvalidOption

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9_+.-]*)://(?P<rest>.*)", re.DOTALL)
_ENCODE = "percent-encode the special characters of user and password, for instance @ as %40"
_TCP_USER_TIMEOUT_SINCE = 120_000  # libpq's version
#: Arguments of psycopg2.connect() that are not libpq's.
FACTORIES = frozenset({"connection_factory", "cursor_factory"})
_SHOWN = ("host", "hostaddr", "port", "dbname", "user", "service")


def connection_url(url: str) -> str:
    """Return the libpq URL for ``NAME://user:password@host:port/database?option=value``.

    Raises `ConfigurationError` for what cannot be one; the message never shows the URL.
    """
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        raise ConfigurationError(
            "a connector's URL looks like NAME://user:password@host:port/database"
        )
    dsn = f"postgresql://{match['rest']}"
    check_dsn(dsn)
    return dsn


def split_url(url: str, options: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """Return the libpq URL without the connector's own ``options``, and the values of those.

    ``options`` maps each name to the function that reads its text, for instance ``int``. Raises
    `ConfigurationError` for a text that the function refuses.
    """
    base, mark, query = _partition(url)
    own: dict[str, Any] = {}
    others = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in options:
            own[name] = _read_option(name, text, options[name])
        else:
            others.append((name, text))
    if not own:
        return connection_url(url), own
    return connection_url(base + (mark if others else "") + urlencode(others, quote_via=quote)), own


def _partition(url: Any) -> tuple[str, str, str]:
    """Split a URL before its query. A question mark in front of the @ is part of a password."""
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        return "", "", ""
    scheme, rest = match.groups()
    userinfo, at, address = rest.partition("@")
    if not at or "/" in userinfo:
        userinfo, at, address = "", "", rest
    address, mark, query = address.partition("?")
    return f"{scheme}://{userinfo}{at}{address}", mark, query


def _read_option(name: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"option {name!r} of the URL cannot be {text!r}") from exc


def check_dsn(dsn: str | None = None, **arguments: Any) -> dict[str, str]:
    """Return libpq's reading of a connection string and keyword arguments, without connecting.

    Raises `InvalidOption` for a keyword that libpq does not know, and `ConfigurationError` for a
    malformed string.
    """
    _check_keywords(arguments)
    if dsn is not None:
        _check_at_signs(dsn)
    try:
        read: dict[str, str] = extensions.parse_dsn(extensions.make_dsn(dsn, **arguments))
    except (psycopg2.Error, TypeError, ValueError) as exc:
        message = f"the connection string is malformed: {_without_quotes(exc)}"
    else:
        _check_ports(read.get("port"))
        return read
    raise ConfigurationError(message)  # outside of the handler: no context that quotes it


#: The encoding of our connections. In any other, a text that it lacks stops each reader.
ENCODING = "UTF8"
#: For our own connections, unless the user says otherwise: seconds to connect; then a peer that
#: acknowledges nothing is given up after 15 s (sending) or 25 s (idle), where TCP takes 2 hours.
LIMITS: Mapping[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}


def for_our_own(
    arguments: Mapping[str, Any], *, connect_timeout: float | None = None
) -> dict[str, Any]:
    """Return psycopg2's arguments for connections of ours: in UTF8, and with limits.

    The encoding is ours whatever the arguments, the environment or the role say: it shows in no
    value. The limits are for a network that swallows everything. One that the arguments or the
    environment give already stays; if they name a service, its file may give it.
    ``connect_timeout`` is in seconds, and our own default if it is None.
    """
    arguments = {**arguments, "client_encoding": ENCODING}
    limits = dict(LIMITS)
    if connect_timeout is not None:
        limits["connect_timeout"] = max(1, math.ceil(connect_timeout))
    if extensions.libpq_version() < _TCP_USER_TIMEOUT_SINCE:
        del limits["tcp_user_timeout"]
    if os.environ.get("PGCONNECT_TIMEOUT"):
        del limits["connect_timeout"]
    libpq = {name: value for name, value in arguments.items() if name not in FACTORIES}
    given = check_dsn(**libpq)
    if "service" in given or os.environ.get("PGSERVICE"):
        return arguments
    return {name: value for name, value in limits.items() if name not in given} | arguments


def _check_keywords(arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        try:
            extensions.make_dsn(**{name: "1"})
        except psycopg2.Error as exc:
            raise InvalidOption(
                f"unknown argument {name!r}: it is neither the connector's nor libpq's"
            ) from exc


def _check_at_signs(dsn: str) -> None:
    address = _partition(dsn)[0].partition("://")[2]
    if address.partition("/")[0].count("@") > 1 or "@" in address.partition("/")[2]:
        raise ConfigurationError(f"the URL has an @ too many: {_ENCODE}")


def _check_ports(ports: str | None) -> None:
    for port in (ports or "").split(","):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise ConfigurationError(
                "the port is not a number from 1 to 65535; if that is part of a password, "
                + _ENCODE
            )


def _without_quotes(exc: Exception) -> str:
    text = str(exc).strip().removeprefix("invalid dsn: ").replace('"="', "=")
    return re.sub(r'".*"', "(not shown)", text, flags=re.DOTALL)


def shown_dsn(read: Mapping[str, str]) -> str:
    """Return the harmless part of what `check_dsn` read, for ``repr``."""
    return " ".join(f"{name}={read[name]}" for name in _SHOWN if name in read)
