"""What is different between psycopg 3 and psycopg2, of which Django uses one.

The work is done by the package of the connector for that driver, which an extra brings.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured

from procrastinate.connector import Executor, Query, Rows
from procrastinate.connector_tools import failures
from procrastinate.errors import ConfigurationError, ConnectorException


class Lease(Protocol):
    """A connection in the hands of one session; see `connector_tools.sessions.Lease`."""

    @property
    def in_transaction(self) -> bool: ...

    @property
    def reusable(self) -> bool: ...

    def run(self, query: Query, begin: str) -> Rows: ...

    def end(self, command: str) -> str | None: ...

    def sever(self) -> None: ...


class Driver(Protocol):
    """What the connector asks of a driver's own connection, called the real one."""

    def lease(self, real: Any) -> Lease:
        """Return the connection as sessions use it."""

    def bound(self, real: Any) -> Executor:
        """Return what runs queries in the transaction that is open, or due, on a connection."""

    def looks_alive(self, real: Any) -> bool:
        """Return whether an idle connection can be used, without a round trip."""

    def sever(self, real: Any) -> None:
        """Shut the socket down, from any thread."""


def uses_psycopg3() -> bool:
    """Return whether Django runs on psycopg 3, which it prefers to psycopg2.

    Raises `ConfigurationError` if it has neither.
    """
    try:
        from django.db.backends.postgresql.psycopg_any import is_psycopg3
    except (ImportError, ImproperlyConfigured) as exc:
        raise ConfigurationError(
            "Django finds no driver for PostgreSQL: run `pip install"
            " 'procrastinate-django[psycopg]'`"
        ) from exc
    return bool(is_psycopg3)


@functools.cache
def driver() -> Driver:
    """Return what serves the driver that Django uses. Raises `ConfigurationError`."""
    is_3 = uses_psycopg3()
    package, extra = (
        ("procrastinate_psycopg", "psycopg") if is_3 else ("procrastinate_psycopg2", "psycopg2")
    )
    if importlib.util.find_spec(package) is None:
        raise ConfigurationError(
            f"Django runs on {'psycopg 3' if is_3 else 'psycopg2'} here, and the package for it is"
            f" not installed: run `pip install 'procrastinate-django[{extra}]'`"
        )
    return _Psycopg() if is_3 else _Psycopg2()


class _Psycopg:
    """psycopg 3."""

    def lease(self, real: Any) -> Lease:
        from procrastinate_psycopg.leases import SyncLease

        return SyncLease(real, is_lent=True)

    def bound(self, real: Any) -> Executor:
        from procrastinate_psycopg.binding import bind

        return bind(real)

    def looks_alive(self, real: Any) -> bool:
        from procrastinate_psycopg import driver

        return driver.looks_alive(real.pgconn)

    def sever(self, real: Any) -> None:
        from procrastinate_psycopg import driver

        driver.sever(real.pgconn)


class _Psycopg2:
    """psycopg2."""

    def lease(self, real: Any) -> Lease:
        from procrastinate_psycopg2.sessions import Lease

        return Lease(real)

    def bound(self, real: Any) -> Executor:
        from procrastinate_psycopg2.sessions import bound

        return bound(real)

    def looks_alive(self, real: Any) -> bool:
        from procrastinate_psycopg2 import driver

        return driver.looks_alive(real)

    def sever(self, real: Any) -> None:
        from procrastinate_psycopg2 import driver

        driver.sever(real)


def connect_error(exc: Exception) -> ConnectorException:
    """Return the error for what Django raised while it made a connection."""
    cause = exc.__cause__ or exc
    sqlstate = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return failures.cannot_connect(exc, sqlstate=sqlstate)
