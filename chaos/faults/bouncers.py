"""Faults of PgBouncer."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar

from chaos.faults.base import BOUNCER, Fault
from chaos.records import Effect

if TYPE_CHECKING:
    from chaos.bouncer import Bouncer
    from chaos.world import World


class BouncerFault(Fault):
    """A fault of the bouncer in one mode."""

    lane = BOUNCER
    mode: ClassVar[str]

    def strike(self, world: World, chance: random.Random) -> None:
        bouncer = world.bouncers[self.mode]
        with world.trouble(self.name, Effect.AWAY, processes=()) as note:
            note.seen = self.harm(world, bouncer, chance)
            note.processes = set(world.census.on(bouncer.route))

    def harm(self, world: World, bouncer: Bouncer, chance: random.Random) -> bool:
        """Do it, and return whether its effect was seen."""
        raise NotImplementedError


class Pause(BouncerFault):
    """PAUSE: clients wait while the bouncer keeps its connections."""

    name, mode = "bouncer: PAUSE", "transaction"

    def harm(self, world: World, bouncer: Bouncer, chance: random.Random) -> bool:
        bouncer.tell("pause chaos")
        try:
            world.hold(chance.uniform(0.3, 0.9) * world.scale.black_hole)
            waiting = column(bouncer, "cl_waiting")
        finally:
            bouncer.tell("resume chaos")
        return waiting > 0


class KillSessions(BouncerFault):
    """KILL: all connections of clients and to the server are closed at once."""

    name, mode = "bouncer: KILL", "session"

    def harm(self, world: World, bouncer: Bouncer, chance: random.Random) -> bool:
        had = column(bouncer, "cl_active")
        bouncer.tell("kill chaos")
        try:
            world.hold(chance.uniform(0.1, 2))
        finally:
            bouncer.tell("resume chaos")
        return had > 0


class RestartSession(BouncerFault):
    """The bouncer in session mode is killed, and started again after a while."""

    name, mode = "bouncer: restart, session mode", "session"

    def harm(self, world: World, bouncer: Bouncer, chance: random.Random) -> bool:
        had = column(bouncer, "cl_active") + column(bouncer, "cl_waiting")
        bouncer.kill()
        world.hold(chance.uniform(0, 3))
        bouncer.start()
        return had > 0


class RestartTransaction(RestartSession):
    """The bouncer in transaction mode is killed, and started again after a while."""

    name, mode = "bouncer: restart, transaction mode", "transaction"


def column(bouncer: Bouncer, name: str) -> int:
    """Return the sum of a column of the console's pools."""
    place = {"cl_active": 2, "cl_waiting": 3}[name]
    return sum(int(row[place]) for row in bouncer.tell("show pools") if row[0] == "chaos")


FAULTS: list[type[Fault]] = [Pause, KillSessions, RestartSession, RestartTransaction]
