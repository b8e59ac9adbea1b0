"""All kinds of faults."""

from __future__ import annotations

from chaos.faults import network, processes, servers, sessions
from chaos.faults.base import Fault

#: What a bare machine can do.
PLAIN: list[type[Fault]] = [
    *processes.FAULTS,
    *servers.FAULTS,
    *sessions.FAULTS,
    *network.FAULTS,
]
