"""All kinds of faults."""

from __future__ import annotations

from chaos.faults import (
    bouncers,
    clocks,
    disks,
    failovers,
    network,
    pauses,
    processes,
    servers,
    sessions,
)
from chaos.faults.base import Fault

#: What a bare machine can do.
PLAIN: list[type[Fault]] = [
    *processes.FAULTS,
    *servers.FAULTS,
    *sessions.FAULTS,
    *network.FAULTS,
    *pauses.FAULTS,
]
#: What needs root, and packages of Debian's.
DEBIAN: list[type[Fault]] = [*bouncers.FAULTS, *clocks.FAULTS, *disks.FAULTS]
#: What is done to two nodes under Patroni, beside what is done to workers.
PATRONI: list[type[Fault]] = [*failovers.FAULTS, *processes.FAULTS]
