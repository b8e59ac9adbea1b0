"""Connection strings as libpq reads them; mistakes are found before anything is connected.

See `procrastinate.connector_tools.urls` for what is done about passwords.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg2
from psycopg2 import extensions

from procrastinate.connector_tools import limits, urls
from procrastinate.errors import InvalidOption

#: Arguments of psycopg2.connect() that are not libpq's.
FACTORIES = frozenset({"connection_factory", "cursor_factory"})


def check_dsn(dsn: str | None = None, **arguments: Any) -> dict[str, str]:
    """Return libpq's reading of a connection string and keyword arguments, without connecting.

    Raises `InvalidOption` for a keyword that libpq does not know, and `ConfigurationError` for a
    malformed string.
    """
    _check_keywords(arguments)
    if dsn is not None:
        urls.check_at_signs(dsn)
    try:
        read: dict[str, str] = extensions.parse_dsn(extensions.make_dsn(dsn, **arguments))
    except (psycopg2.Error, TypeError, ValueError) as exc:
        error = urls.malformed(exc)
    else:
        urls.check_ports(read.get("port"))
        return read
    raise error  # outside of the handler: no context that quotes it


def for_our_own(
    arguments: Mapping[str, Any], *, connect_timeout: float | None = None
) -> dict[str, Any]:
    """Return psycopg2's arguments for connections of ours: in UTF8, and with limits.

    The encoding is ours whatever the arguments, the environment or the role say: it shows in no
    value. ``connect_timeout`` is in seconds; see `procrastinate.connector_tools.limits`.
    """
    missing = limits.missing(
        check_dsn(**without_factories(arguments)),
        connect_timeout=connect_timeout,
        libpq_version=extensions.libpq_version(),
    )
    return {**missing, **arguments, "client_encoding": limits.ENCODING}


def without_factories(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are libpq's."""
    return {name: value for name, value in arguments.items() if name not in FACTORIES}


def _check_keywords(arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        try:
            extensions.make_dsn(**{name: "1"})
        except psycopg2.Error as exc:
            raise InvalidOption(
                f"unknown argument {name!r}: it is neither the connector's nor libpq's"
            ) from exc
