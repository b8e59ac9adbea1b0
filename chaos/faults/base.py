"""What a fault is."""

from __future__ import annotations

import abc
import random
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from chaos.world import World

PROCESSES, SERVER, NETWORK = "processes", "server", "network"
BOUNCER, CLOCK, OPERATOR = "bouncer", "clock", "operator"


class Fault(abc.ABC):
    """A kind of fault. Those of one lane strike one after the other, the lanes side by side."""

    name: ClassVar[str]
    lane: ClassVar[str]
    #: How often it is drawn, beside the others.
    weight: ClassVar[float] = 1.0

    @abc.abstractmethod
    def strike(self, world: World, chance: random.Random) -> None:
        """Do it, and return when it is over. It counts if its effect was seen (`World.trouble`)."""
