"""A connection's socket, known by its file descriptor only."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Mapping

if hasattr(select, "poll"):

    def readable(fileno: int) -> bool:
        """Return whether something waits to be read, without waiting.

        An idle connection on which something waits has probably been ended by the server, which
        says so before it hangs up. Notices and notifications are the other possibility.
        """
        poll = select.poll()  # unlike select(), takes descriptors of 1024 and above
        poll.register(fileno, select.POLLIN)
        return bool(poll.poll(0))

else:  # Windows

    def readable(fileno: int) -> bool:
        """Return whether something waits to be read, without waiting."""
        return bool(select.select([fileno], [], [], 0)[0])


def shut_down(fileno: int) -> None:
    """Shut a socket down, from any thread: whatever waits for it ends at once.

    The descriptor stays open, because it is the driver's. Sends nothing through the driver, waits
    for nothing and never raises; a descriptor that is closed is left alone.
    """
    try:
        duplicate = os.dup(fileno)
    except OSError:  # it is closed
        return
    with contextlib.suppress(OSError), socket.socket(fileno=duplicate) as shared:
        shared.shutdown(socket.SHUT_RDWR)


#: The options of TCP behind the names of libpq's parameters; the unit of the last is milliseconds.
_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",  # not on macOS
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",  # only on Linux
}


def limit(connection: socket.socket, limits: Mapping[str, int]) -> None:
    """Give up a peer that acknowledges nothing, as libpq would: for drivers without libpq.

    ``limits`` are those of `procrastinate.connector_tools.limits`. What the system does not know is
    left out, and so is a socket that is not one of TCP.
    """
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in _OPTIONS.items():
        if name in limits and hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), int(limits[name]))
