"""Which jobs there are: drawn from a seed, without a database."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from chaos.nasty import DEEDS
from chaos.records import FOREVER, Spec

QUEUES = ("red", "green", "blue")
LONELY = "lonely"  # a queue that only the workers behind the proxy serve
LOCKS = 12  # lines
QUEUEING_LOCKS = 6
TASKS = ("in_a_thread", "on_the_loop")
KEEPING = {task: f"keep_{task}" for task in TASKS}  # the same ones, with results that are kept
KEPT_SHARE = 0.2  # of the single jobs; those who defer them wait for their results
LARGEST_BATCH = 20
LONGEST = 4.0  # seconds


def draw(numbers: Sequence[int], seed: int, long_share: float) -> Iterator[list[Spec]]:
    """Return the jobs with these numbers, in calls of one or several. `long_share` of
    the single ones take seconds."""
    chance = random.Random(seed)
    left = list(numbers)
    while left:
        size = chance.randint(2, LARGEST_BATCH) if chance.random() < 0.1 else 1
        group, left = left[:size], left[size:]
        yield batch(chance, group) if len(group) > 1 else [single(chance, group[0], long_share)]


def batch(chance: random.Random, numbers: Sequence[int]) -> list[Spec]:
    """Return the jobs of one call: they share their options, and have no queueing lock."""
    queue, lock, priority = chance.choice(QUEUES), _lock(chance), _priority(chance)
    return [
        Spec(n, "on_the_loop", queue, priority, lock, seconds=chance.uniform(0, 0.02))
        for n in numbers
    ]


def single(chance: random.Random, n: int, long_share: float) -> Spec:
    """Return one job of any kind."""
    twin = f"twin {chance.randrange(QUEUEING_LOCKS)}" if chance.random() < 0.08 else None
    task = chance.choice(TASKS)
    is_kept = chance.random() < KEPT_SHARE
    return Spec(
        n,
        KEEPING[task] if is_kept else task,
        chance.choice(QUEUES),
        _priority(chance),
        _lock(chance),
        twin,
        delay=round(chance.uniform(0.2, 5), 3) if chance.random() < 0.15 else None,
        seconds=_seconds(chance, long_share),
        failing=_failing(chance),
        waited=is_kept,
    )


def nasty(chance: random.Random, n: int, deed: str) -> Spec:
    """Return a job that harms its own process once or twice, or, if it kills it, for ever."""
    _, kills = DEEDS[deed]
    for_ever = kills and chance.random() < 0.1
    tasks = ("nasty_on_the_loop",) if deed == "blocked loop" else ("nasty", "nasty_on_the_loop")
    return Spec(
        n,
        chance.choice(tasks),
        chance.choice(QUEUES),
        priority=1,
        deed=deed,
        crashing=FOREVER if for_ever else chance.choice((1, 2)) if kills else 1,
    )


def arguments(spec: Spec) -> dict[str, object]:
    """Return the arguments of a job's task."""
    if spec.deed is not None:
        return {"n": spec.n, "deed": spec.deed, "crashing": spec.crashing}
    return {"n": spec.n, "seconds": spec.seconds, "failing": spec.failing}


def _priority(chance: random.Random) -> int:
    return chance.choice((0, 0, 0, 1, -1, 5))


def _lock(chance: random.Random) -> str | None:
    return f"line {chance.randrange(LOCKS)}" if chance.random() < 0.4 else None


def _seconds(chance: random.Random, long_share: float) -> float:
    """Most jobs are short. A few run for long enough that a fault meets them."""
    if chance.random() < long_share:
        return round(chance.uniform(0.5, LONGEST), 3)
    return round(chance.uniform(0, 0.05), 4)


def _failing(chance: random.Random) -> int:
    return FOREVER if chance.random() < 0.01 else chance.choice((0, 0, 0, 0, 0, 0, 0, 1, 2))
