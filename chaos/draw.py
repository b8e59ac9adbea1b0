"""Which faults strike, in which order: drawn from a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from chaos.faults.base import Fault

LONG = 100  # faults
MOST = 0.08  # no kind is more than this share of a long campaign


def draw(kinds: Sequence[type[Fault]], count: int, chance: random.Random) -> list[type[Fault]]:
    """Return the kinds of ``count`` faults, in random order, each about as often as it weighs."""
    most = math.floor(MOST * count)
    if count < LONG or most * len(kinds) < count:  # too few faults, or too few kinds
        most = count
    weight = sum(kind.weight for kind in kinds)
    shares = {kind: min(most, count * kind.weight / weight) for kind in kinds}
    drawn = [kind for kind, share in shares.items() for _ in range(math.floor(share))]
    rest = sorted(kinds, key=lambda kind: (shares[kind] % 1) + chance.random(), reverse=True)
    counts = {kind: math.floor(share) for kind, share in shares.items()}
    while len(drawn) < count and any(counts[kind] < most for kind in kinds):
        for kind in rest:
            if len(drawn) < count and counts[kind] < most:
                counts[kind] += 1
                drawn.append(kind)
    chance.shuffle(drawn)
    return drawn
