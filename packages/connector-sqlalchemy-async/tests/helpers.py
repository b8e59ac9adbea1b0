from __future__ import annotations

import shlex
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from procrastinate.connector_tools import urls

DRIVERS = ("asyncpg", "psycopg")


def url_of(driver: str) -> str:
    return f"postgresql+{driver}://"


def arguments_for(driver: str, dsn: str) -> dict[str, Any]:
    """Return the driver's arguments for a libpq connection string, a URL or keywords."""
    read = _read(dsn)
    if driver == "psycopg":
        return read
    host: Any = read.pop("host", None)
    found: dict[str, Any] = {"host": host, "port": int(read.pop("port", 0) or 5432)}
    for name, libpq in (("user", "user"), ("password", "password"), ("database", "dbname")):
        if read.get(libpq):
            found[name] = read.pop(libpq)
    if "connect_timeout" in read:
        found["timeout"] = float(read.pop("connect_timeout"))
    return found | ({"server_settings": read} if read else {})


def _read(dsn: str) -> dict[str, str]:
    if "://" not in dsn:
        return dict(part.split("=", 1) for part in shlex.split(dsn))
    read = dict(urls.read_url(dsn))
    assert dict(parse_qsl(urlsplit(dsn).query)).items() <= read.items()
    return read
