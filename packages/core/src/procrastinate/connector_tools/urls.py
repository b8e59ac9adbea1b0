"""Connectors' URLs and connection strings, without a driver and without their passwords.

No message may hold a password. Drivers quote pieces of a string that they cannot read, and a
password that was not percent-encoded ends up in the host, the port or the database. So what came
out of a string is never shown when it is wrong, and those errors have no cause.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from procrastinate.errors import ConfigurationError

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9_+.-]*)://(?P<rest>.*)", re.DOTALL)
_ENCODE = "percent-encode the special characters of user and password, for instance @ as %40"
_OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NAME = re.compile(r"[A-Za-z0-9_.+-]{0,60}")
_WORD = re.compile(r"[\w.@-]*")
_HOSTS = re.compile(r"[\w.,/@-]*|[0-9A-Fa-f:.,%\[\]]*")  # names, sockets; or addresses
#: What is shown of parameters, and what each has to look like: else it may be a piece of a password
#: that was not encoded.
_SHOWN = {
    "host": _HOSTS,
    "hostaddr": _HOSTS,
    "port": re.compile(r"[0-9,]*"),
    "dbname": _WORD,
    "user": _WORD,
    "service": _WORD,
}


def split_url(url: str, options: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """Return libpq's URL (``postgresql://``) without the connector's ``options``, and their values.

    ``options`` maps each name to the function that reads its text, for instance ``int``. Raises
    `ConfigurationError` for a text that the function refuses, and for what cannot be a URL.
    """
    base, mark, query = _partition(url)
    own: dict[str, Any] = {}
    others = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in options:
            own[name] = _read_option(name, text, options[name])
        else:
            others.append((name, text))
    if own:
        url = base + (mark if others else "") + urlencode(others, quote_via=quote)
    return libpq_url(url), own


def libpq_url(url: str) -> str:
    """Return the libpq URL for ``NAME://user:password@host:port/database?option=value``.

    Raises `ConfigurationError` for what is no URL, or has an @ too many.
    """
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        raise ConfigurationError(
            "a connector's URL looks like NAME://user:password@host:port/database"
        )
    dsn = f"postgresql://{match['rest']}"
    check_at_signs(dsn)
    return dsn


def read_url(url: str) -> dict[str, str]:
    """Return the parameters of a URL by libpq's names, for drivers without libpq.

    Several hosts and their ports are lists with commas, as in libpq; a port that is absent is
    empty. Raises `ConfigurationError` for what cannot be a URL.
    """
    url = libpq_url(url)
    check_url(url)
    base, _, query = _partition(url)
    address = base.partition("://")[2]
    userinfo, _, address = address.rpartition("@")
    user, _, password = userinfo.partition(":")
    places, _, dbname = address.partition("/")
    hosts, ports = zip(*map(_host_and_port, places.split(",")), strict=True)
    read = {
        "user": unquote(user),
        "password": unquote(password),
        "host": ",".join(hosts),
        "port": ",".join(ports) if any(ports) else "",
        "dbname": unquote(dbname),
        **dict(parse_qsl(query, keep_blank_values=True)),
    }
    return {name: value for name, value in read.items() if value}


#: Where libpq looks for what a URL does not say.
_ENVIRONMENT = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}


def with_environment(read: Mapping[str, str]) -> dict[str, str]:
    """Return parameters with what libpq's environment adds, for drivers without libpq.

    Host, port and user are there in any case: localhost, 5432 and the operating system's user.
    """
    found = {name: os.environ.get(variable) for name, variable in _ENVIRONMENT.items()}
    added = {name: value for name, value in found.items() if value}
    whole = {"host": "localhost", "port": "5432", **added, **read}
    if "user" in whole:
        return whole
    import getpass  # not at the top: it is seldom needed

    return {**whole, "user": getpass.getuser()}


def _host_and_port(place: str) -> tuple[str, str]:
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, ""
    return unquote(host.strip("[]")), port


def check_scheme(dsn: object) -> None:
    """Raise `ConfigurationError` for a connection string that is a URL, but none of libpq's."""
    if not isinstance(dsn, str):
        kind = type(dsn)
        raise ConfigurationError(
            "a connection string is a text, not a"
            f" {kind.__module__}.{kind.__qualname__}: write postgresql://user@host/database"
            " (SQLAlchemy's objects are for the connectors over SQLAlchemy)"
        )
    match = _URL.match(dsn)
    scheme = match["scheme"] if match else "postgresql"
    if "+" in scheme:
        raise ConfigurationError(
            f"{scheme[:40]}:// is how SQLAlchemy writes a URL: leave the driver out, as in"
            " postgresql://user@host/database, or use a connector over SQLAlchemy"
        )
    if scheme not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"the connection string begins with {scheme[:40]}://, and libpq's begin with"
            " postgresql://; a connector's own URL goes to App(connector=...)"
        )


def check_at_signs(dsn: str) -> None:
    """Raise `ConfigurationError` for a URL with an @ that belongs to a password, not encoded.

    Also for a connection string that `check_scheme` refuses.
    """
    check_scheme(dsn)
    address = _partition(dsn)[0].partition("://")[2]
    if address.partition("/")[0].count("@") > 1 or "@" in address.partition("/")[2]:
        raise ConfigurationError(f"the URL has an @ too many: {_ENCODE}")


def check_url(url: str) -> None:
    """Raise `ConfigurationError` for a URL that drivers without libpq read in another way than it.

    They take an unquoted ``#`` or ``?`` for the end of the address, and what follows an unquoted
    ``@`` or ``:`` for the host or the port: so pieces of a password come into their messages.
    Call it before any driver sees the URL, whatever its scheme is.
    """
    if "\0" in unquote(url):
        raise ConfigurationError("the URL has a NUL character, which nothing in it may have")
    base, _, query = _partition(url)
    rest = base.partition("://")[2]
    userinfo, _, address = rest.rpartition("@")
    if any(sign in userinfo for sign in "#?@") or any(sign in address for sign in "#@"):
        raise ConfigurationError(f"the URL has a #, a ? or an @ too many: {_ENCODE}")
    for place in address.partition("/")[0].split(","):
        host, port = _host_and_port(place)
        if ":" in host and not place.startswith("["):
            raise ConfigurationError(f"the URL has a : too many: {_ENCODE}")
        check_ports(port)
    for name, value in parse_qsl(query, keep_blank_values=True):
        _check_option(name, value)


def _check_option(name: str, value: str) -> None:
    if not _OPTION.fullmatch(name):
        raise ConfigurationError(
            f"what follows the ? of the URL is not option=value; if it is part of a password, "
            f"{_ENCODE}"
        )
    if name in ("host", "hostaddr"):
        check_host(value)
    if name == "port":
        check_ports(value)


def check_host(host: str) -> None:
    """Raise `ConfigurationError` for a host that has the end of a password in it, or a NUL."""
    if "@" in host[1:] or "\0" in host:  # the name of an abstract socket begins with @
        raise ConfigurationError(f"the host has an @ or a NUL in it: {_ENCODE}")


def quoted_url(url: str) -> str:
    """Return a URL that `check_url` let pass, with user, password and database percent-encoded.

    Python's own parser quotes the whole address in an error for some characters that are not.
    """
    base, mark, query = _partition(url)
    scheme, _, address = base.partition("://")
    userinfo, at, address = address.rpartition("@")
    places, slash, dbname = address.partition("/")
    said = ":".join(quote(unquote(part), safe="") for part in userinfo.split(":", 1))
    return f"{scheme}://{said}{at}{places}{slash}{quote(unquote(dbname), safe='')}{mark}{query}"


def check_ports(ports: str | None) -> None:
    """Raise `ConfigurationError` unless each of the ports, with commas between them, is one."""
    for port in (ports or "").split(","):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise ConfigurationError(
                "the port is not a number from 1 to 65535; if that is part of a password, "
                + _ENCODE
            )


def malformed(exc: Exception) -> ConfigurationError:
    """Return the error for a string that a driver's parser refused, without what it quotes.

    Raise it outside of the handler, so that the parser's own error is not its context.
    """
    text = str(exc).strip().removeprefix("invalid dsn: ").replace('"="', "=")
    text = re.sub(r'".*"', "(not shown)", text, flags=re.DOTALL)
    return ConfigurationError(f"the connection string is malformed: {text}")


def shown_name(text: str) -> str:
    """Return what should be a connector's name, for a message: only if it can be nothing else."""
    return repr(text) if _NAME.fullmatch(text) else "(not shown: it may hold a password)"


def shown(read: Mapping[str, Any]) -> str:
    """Return the harmless part of parameters by libpq's names, for ``repr``.

    Nothing at all if one of them looks odd: the others may be pieces of a password too.
    """
    said = {name: str(read[name]) for name in _SHOWN if read.get(name)}
    if not all(_SHOWN[name].fullmatch(value) for name, value in said.items()):
        return "(not shown)"
    return " ".join(f"{name}={value}" for name, value in said.items()) or "(libpq defaults)"


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
    except (TypeError, ValueError):
        pass  # and is not the cause of what follows: it quotes the text
    raise ConfigurationError(
        f"the value of the option {name!r} of the URL cannot be read; if it is part of a password,"
        f" {_ENCODE}"
    )
