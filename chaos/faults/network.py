"""Faults of the network between some of the workers and the server."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from chaos.faults.base import NETWORK, Fault
from chaos.jobs import LONELY
from chaos.records import Effect, Spec
from chaos.world import PROXIED

if TYPE_CHECKING:
    from chaos.world import World

FELT = 5.0  # seconds in which a trap must have snapped
SILENCE_NOTICED = timedelta(seconds=20)  # until the next claim, while new connections work
BACK_AFTER = timedelta(seconds=5)  # until the next claim, once the network is back
MARGIN = timedelta(seconds=5)  # from the claim to the row of a run, on a busy machine


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
            began = datetime.now(UTC)
            world.proxy.black_hole(new_ones=self.new_ones)
            note.awaited = world.number()
            world.defer(Spec(note.awaited, "on_the_loop", LONELY))
            world.hold(world.scale.black_hole * chance.uniform(1.0, 1.3))
            note.seen = world.proxy.felt > 0
            world.proxy.heal(cut=chance.random() < 0.5)
            note.processes = set(world.census.on(PROXIED))
            note.back_by = self.back_by(began)
        # Until then nothing else may strike the same connections.
        world.hold((note.back_by - datetime.now(UTC)).total_seconds())

    def back_by(self, began: datetime) -> datetime:
        """Return when runs must begin again: new connections work all the time."""
        return began + SILENCE_NOTICED + MARGIN


class BlackHoleForAll(BlackHole):
    """All connections fall silent, and so do new ones."""

    name = "network: black hole, new connections too"
    new_ones = True

    def back_by(self, began: datetime) -> datetime:
        return datetime.now(UTC) + BACK_AFTER + MARGIN


FAULTS: list[type[Fault]] = [Cut, CutAnswer, CutRequest, Delay, BlackHole, BlackHoleForAll]
