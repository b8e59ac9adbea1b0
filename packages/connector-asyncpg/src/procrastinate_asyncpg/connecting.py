"""Making connections of our own, with a limit on every wait."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from procrastinate.connector_tools import forks
from procrastinate_asyncpg.failures import DRIVER_ERRORS, cannot_connect
from procrastinate_asyncpg.held import fileno_of
from procrastinate_asyncpg.kinds import Connection

#: libpq's names for a socket's limits, and the system's.
_SOCKET_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


@dataclass(frozen=True)
class ConnectOptions:
    """How to connect: arguments of ``asyncpg.connect``, and what it does not do itself."""

    arguments: Mapping[str, Any] = field(repr=False)
    shown: str
    timeout: float  # seconds
    #: Limits of the socket by libpq's names.
    limits: Mapping[str, int]
    #: Whether the user has said that nothing is to be prepared.
    prepares: bool = True


async def connect(options: ConnectOptions) -> Connection:
    """Return a new connection. Raises `ConnectionFailed`."""
    try:
        connection = await asyncpg.connect(
            **options.arguments, timeout=options.timeout, statement_cache_size=0
        )
    except (*DRIVER_ERRORS, ValueError) as exc:
        raise cannot_connect(exc, options.shown) from exc
    _limit(connection, options.limits)
    forks.detach_after_fork(connection, _fileno)
    return connection


def _fileno(connection: Connection) -> int:
    fileno = fileno_of(connection)
    return -1 if fileno is None else fileno


def _limit(connection: Connection, limits: Mapping[str, int]) -> None:
    fileno = fileno_of(connection)
    if fileno is None or not limits:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fileno)) as shared:
        if shared.family not in (socket.AF_INET, socket.AF_INET6):
            return
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in limits.items():
            option = getattr(socket, _SOCKET_OPTIONS.get(name, ""), None)
            if option is not None:
                shared.setsockopt(socket.IPPROTO_TCP, option, value)
