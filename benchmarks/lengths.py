"""How long the jobs of W15 take: pure values, and the same ones for the limit and for us.

A pattern is a short text, so that it can go through a command line:

``5ms``             each job takes 5 ms
``5ms,1/20:500ms``  one in 20 takes 500 ms, the others 5 ms
``exp:5ms``         exponentially distributed around a mean of 5 ms
"""

from __future__ import annotations

import random
import re

_SEED = 15  # a drain is as long as its jobs happen to be: both halves of a pair get the same ones
_PATTERN = re.compile(
    r"(?P<scattered>exp:)?(?P<usual>\d+)ms(?:,1/(?P<one_in>\d+):(?P<seldom>\d+)ms)?"
)


def seconds_of(pattern: str, count: int) -> list[float]:
    """Return the seconds that each of ``count`` jobs takes, in order."""
    scattered, usual, one_in, seldom = _parts_of(pattern)
    dice = random.Random(_SEED)
    if scattered:
        return [dice.expovariate(1 / usual) for _ in range(count)]
    if one_in:
        return [seldom if dice.randrange(one_in) == 0 else usual for _ in range(count)]
    return [usual] * count


def mean_of(pattern: str) -> float:
    """Return the seconds that a job is expected to take."""
    _, usual, one_in, seldom = _parts_of(pattern)
    return usual + (seldom - usual) / one_in if one_in else usual


def _parts_of(pattern: str) -> tuple[bool, float, int, float]:
    match = _PATTERN.fullmatch(pattern)
    if match is None:
        raise ValueError(f"{pattern!r} is no pattern of lengths")
    return (
        match["scattered"] is not None,
        int(match["usual"]) / 1e3,
        int(match["one_in"] or 0),
        int(match["seldom"] or 0) / 1e3,
    )
