"""How long connections of our own wait for a network that swallows everything.

Without these, TCP takes about two hours to notice that a peer is gone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Container, Mapping

#: The encoding of our connections. In any other, a text that it lacks stops each reader.
ENCODING = "UTF8"
#: By the names of libpq's parameters: seconds to connect; then a peer that acknowledges nothing is
#: given up after 15 s (while sending) or 25 s (while idle).
LIMITS: Mapping[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}
#: The first version of libpq that knows ``tcp_user_timeout``.
TCP_USER_TIMEOUT_SINCE = 120_000


def missing(
    given: Container[str],
    *,
    connect_timeout: float | None = None,
    libpq_version: int = TCP_USER_TIMEOUT_SINCE,
) -> dict[str, int]:
    """Return the limits that a connection of ours needs and that were not given, by libpq's names.

    ``given`` are the names of libpq's parameters in the connector's arguments. A limit from the
    environment stays as well; if a service is named, its file may give any of them.
    ``connect_timeout`` is in seconds, `LIMITS` says it if it is None.
    """
    if "service" in given or os.environ.get("PGSERVICE"):
        return {}
    limits = dict(LIMITS)
    if connect_timeout is not None:
        limits["connect_timeout"] = max(1, math.ceil(connect_timeout))
    if os.environ.get("PGCONNECT_TIMEOUT"):
        del limits["connect_timeout"]
    if libpq_version < TCP_USER_TIMEOUT_SINCE:
        del limits["tcp_user_timeout"]
    return {name: value for name, value in limits.items() if name not in given}
