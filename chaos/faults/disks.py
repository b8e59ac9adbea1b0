"""A disk that is full."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from chaos.faults.base import SERVER, Fault
from chaos.faults.sessions import log_of
from chaos.records import Effect

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.world import World

NOTICED_WITHIN = 20.0  # seconds


class DiskFull(Fault):
    """Nothing more can be written on the server's disk, until there is room again."""

    name, lane = "server: disk full", SERVER
    weight = 0.7

    def strike(self, world: World, chance: random.Random) -> None:
        ballast = world.cluster.folder / "ballast"
        with (
            world.trouble(self.name, Effect.AWAY, Effect.FORGETS) as note,
            log_of(world) as log,
        ):
            try:
                fill(ballast)
                note.seen = world.until(lambda: log.says("No space left on device"), NOTICED_WITHIN)
                world.hold(chance.uniform(0, 3))
            finally:
                ballast.unlink(missing_ok=True)
            if not world.server.is_up():  # its log could not be written, and it has given up
                world.server.start()
            world.cluster.query("select 1")


def fill(ballast: Path) -> None:
    """Write a file until the disk is full."""
    with ballast.open("wb", buffering=0) as file:
        found = os.statvfs(ballast.parent)
        size, step = 0, found.f_bavail * found.f_frsize
        while step >= found.f_frsize:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:  # the server has taken some of it meanwhile
                step //= 2


FAULTS: list[type[Fault]] = [DiskFull]
