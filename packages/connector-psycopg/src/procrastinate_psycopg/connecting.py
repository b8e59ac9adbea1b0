"""Making connections of our own.

psycopg resolves names, tries several hosts and addresses one after the other, and applies
``connect_timeout`` to each. A refusal is known at once, and not behind the time that a pool waits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import pq

from procrastinate.connector_tools import failures, limits, urls
from procrastinate.connector_tools.plans import Permission, Plans
from procrastinate_psycopg import driver
from procrastinate_psycopg.leases import AsyncLease, SyncLease

logger = logging.getLogger("procrastinate.psycopg")
_SET_ISO = "SET datestyle TO 'ISO'"
_ERRORS = (psycopg.Error, OSError, ValueError)


class _Connection(psycopg.Connection[Any]):
    def __del__(self, *_: Any) -> None:
        """Say nothing: a connector that is dropped closes its connections, in its own process."""


class _AsyncConnection(psycopg.AsyncConnection[Any]):
    def __del__(self, *_: Any) -> None:
        """Say nothing: a connector that is dropped closes its connections, in its own process."""


def behind_pooler() -> None:
    """Say once for a pool that a pooler was found."""
    logger.info(
        "there is a pooler in front of PostgreSQL: no prepared statements, and LISTEN only with"
        " listen_conninfo="
    )


def connect(parameters: Mapping[str, Any], permission: Permission) -> SyncLease:
    """Return a new connection, which prepares statements if it may. Raises `ConnectionFailed`."""
    try:
        connection = _Connection.connect(**_for_our_own(parameters))
    except _ERRORS as exc:
        raise _failed(exc, parameters) from exc
    lease = SyncLease(connection, plans=Plans(permission))
    if not driver.has_iso_dates(connection.pgconn):
        lease.command(_SET_ISO)
    return lease


async def connect_async(
    parameters: Mapping[str, Any], permission: Permission | None = None
) -> AsyncLease:
    """Return a new connection, which prepares statements if it may. Raises `ConnectionFailed`."""
    try:
        connection = await _AsyncConnection.connect(**_for_our_own(parameters))
    except _ERRORS as exc:
        raise _failed(exc, parameters) from exc
    lease = AsyncLease(connection, plans=None if permission is None else Plans(permission))
    if not driver.has_iso_dates(connection.pgconn):
        await lease.command(_SET_ISO)
    return lease


def _for_our_own(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **limits.missing(parameters, libpq_version=pq.version()),
        **parameters,
        "client_encoding": limits.ENCODING,
        "autocommit": True,
        "prepare_threshold": None,
    }


def _failed(exc: Exception, parameters: Mapping[str, Any]) -> Exception:
    where = urls.shown(parameters) if parameters else ""
    return failures.cannot_connect(exc, where=where, sqlstate=getattr(exc, "sqlstate", None))
