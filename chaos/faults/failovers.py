"""Faults of two nodes under Patroni: the standby becomes the primary."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar

from chaos.faults.base import SERVER, Fault
from chaos.records import Effect

if TYPE_CHECKING:
    from chaos.patroni import Node, Patroni
    from chaos.world import World

TAKES_OVER_WITHIN = 60.0  # seconds


class Failover(Fault):
    """The primary changes."""

    lane = SERVER
    forgets: ClassVar[bool] = True

    def strike(self, world: World, chance: random.Random) -> None:
        pair = world.patroni
        pair.wait_until_healthy()
        primary = pair.leader()
        if primary is None:
            return
        effects = [Effect.AWAY, *([Effect.FORGETS] if self.forgets else [])]
        with world.trouble(self.name, *effects) as note:
            self.begin(primary, pair)
            other = pair.other(primary)
            note.seen = world.until(lambda: pair.leader() is other, TAKES_OVER_WITHIN)
            pair.query("select 1")
        world.hold(chance.uniform(0, 3))
        self.end(primary)
        pair.wait_until_healthy()

    def begin(self, primary: Node, pair: Patroni) -> None:
        """Let it begin."""
        raise NotImplementedError

    def end(self, primary: Node) -> None:
        """Let the old primary come back."""


class KillPrimary(Failover):
    """kill -9 of the primary and of its Patroni."""

    name = "Patroni: kill -9 of the primary"

    def begin(self, primary: Node, pair: Patroni) -> None:
        primary.kill()

    def end(self, primary: Node) -> None:
        primary.start()


class Switchover(Failover):
    """The nodes change places, as they are asked to."""

    name = "Patroni: switchover"

    def begin(self, primary: Node, pair: Patroni) -> None:
        other = pair.other(primary)
        other.ask("/switchover", {"leader": primary.name, "candidate": other.name})


class Split(Failover):
    """The primary is cut off from etcd, and must give up before the other one takes over."""

    name = "Patroni: network split"

    def begin(self, primary: Node, pair: Patroni) -> None:
        primary.to_etcd.black_hole(new_ones=True)

    def end(self, primary: Node) -> None:
        primary.to_etcd.heal()


FAULTS: list[type[Fault]] = [KillPrimary, Switchover, Split]
