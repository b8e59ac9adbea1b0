"""Faults of the network between some of the workers and the server."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from chaos.faults.base import NETWORK, Fault
from chaos.records import Effect
from chaos.world import PROXIED

if TYPE_CHECKING:
    from chaos.world import World

FELT = 5.0  # seconds in which a trap must have snapped


class Cut(Fault):
    """Connections break."""

    name, lane = "network: cut", NETWORK

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name, processes=()) as note:
            world.proxy.reset()
            world.proxy.cut(chance.choice((0.3, 1.0)))
            note.seen = world.proxy.felt > 0


class CutAnswer(Fault):
    """Connections break between a COMMIT and its answer: the server has done what was asked."""

    name, lane = "network: cut before the answer", NETWORK

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name, processes=()) as note:
            world.proxy.reset()
            world.proxy.cut_next_answer(chance.choice((0.3, 1.0)))
            note.seen = world.until(lambda: world.proxy.felt > 0, FELT)


class CutRequest(Fault):
    """Connections break in the middle of a request."""

    name, lane = "network: cut in a request", NETWORK

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name, processes=()) as note:
            world.proxy.reset()
            world.proxy.cut_next_request(chance.choice((0.3, 1.0)))
            note.seen = world.until(lambda: world.proxy.felt > 0, FELT)


class Delay(Fault):
    """Every message takes long."""

    name, lane = "network: delay", NETWORK

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name, processes=()) as note:
            world.proxy.reset()
            world.proxy.delay(chance.uniform(0.05, 0.4))
            world.hold(chance.uniform(1, 4))
            world.proxy.delay(0)
            note.seen = world.proxy.felt > 0


class BlackHole(Fault):
    """All open connections fall silent, without an end; new ones work."""

    name, lane = "network: black hole", NETWORK
    weight = 0.6
    new_ones = False

    def strike(self, world: World, chance: random.Random) -> None:
        with world.trouble(self.name, Effect.AWAY, processes=()) as note:
            world.proxy.reset()
            world.proxy.black_hole(new_ones=self.new_ones)
            world.hold(world.scale.black_hole * chance.uniform(0.7, 1.0))
            note.seen = world.proxy.felt > 0
            world.proxy.heal(cut=chance.random() < 0.5)
            note.processes = set(world.census.on(PROXIED))


class BlackHoleForAll(BlackHole):
    """All connections fall silent, and so do new ones."""

    name = "network: black hole, new connections too"
    new_ones = True


FAULTS: list[type[Fault]] = [Cut, CutAnswer, CutRequest, Delay, BlackHole, BlackHoleForAll]
