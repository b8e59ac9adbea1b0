"""Faults of a worker's clock: it is wrong by hours, and jumps."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar

from chaos.faults.base import CLOCK, Fault

if TYPE_CHECKING:
    from chaos.world import World

SEEN_WITHIN = 30.0  # seconds until a run has begun by the wrong clock


class Shift(Fault):
    """The clock of one worker jumps, and jumps back later."""

    lane = CLOCK
    least: ClassVar[int]
    most: ClassVar[int]  # seconds

    def strike(self, world: World, chance: random.Random) -> None:
        offset = chance.randint(self.least, self.most)
        clock = world.clock
        assert clock is not None
        with world.trouble(self.name, processes=()) as note:
            clock.shift(offset)
            note.seen = world.until(lambda: self._is_seen(world, offset), SEEN_WITHIN)
            world.hold(chance.uniform(1, 3))
            clock.shift(0)

    def _is_seen(self, world: World, offset: int) -> bool:
        rows = world.ledger.query(
            "select exists (select from began where at > clock_timestamp() - interval '30 s'"
            " and abs(clock - extract(epoch from at) - %s) < 60)",
            offset,
        )
        return bool(rows[0][0])


class Ahead(Shift):
    """The clock jumps ahead, by hours."""

    name = "clock: ahead"
    least, most = 3_600, 90_000


class Behind(Shift):
    """The clock jumps back, by hours."""

    name = "clock: behind"
    least, most = -90_000, -3_600


FAULTS: list[type[Fault]] = [Ahead, Behind]
