"""How many jobs a worker claims before it has a slot for them.

A slot waits for the database if the next job is claimed only when the slot is free. A claimed job
waits for a slot if it is claimed too early, and another worker could have run it meanwhile. So a
worker claims for those slots that will be free when the claim comes back.

Rules

1. The horizon is two claims, the one that is sent now and the next one, but `LEAST_HORIZON` if
   claims are faster: a claim of few jobs costs almost as much as one of many.
2. What a task's last attempts took says when a running attempt will end. The share of them that
   ended at its age or within the horizon, of those that lasted as long as it has, is the
   probability that it ends in time. So equal lengths give a date, exponential ones a rate, and a
   task that takes 5 ms most often and sometimes 500 ms gives the first until it is late.
3. An attempt that lasts longer than all of them is about to end for one more horizon. Then nothing
   is known about it, and nothing is claimed for it.
4. Jobs shorter than the horizon free their slot several times, but all slots together no more
   often than twice what the worker has lately got through: its own work for each takes time.
5. The sum is rounded at random, not up: if one job in ten attempts would be claimed in time, no job
   must be held behind each of them.
6. Nothing is claimed ahead for a task, or before a claim, of which nothing is known.
"""

from __future__ import annotations

import math
import random
import statistics
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass

MAX_AHEAD = 1_000  # jobs: two claims, so that one can be worked on while the next is under way
CLAIMS_AHEAD = 2.0  # claims in a horizon
LEAST_HORIZON = 0.004  # seconds; less than what a job may wait claimed
ATTEMPTS = 32  # attempts of a task, and of all tasks, that are remembered
NEWS = 128  # attempts that are noted between two outlooks
CLAIMS = 16  # claims that are remembered
USUAL_CLAIM = 0.75  # quantile: a slot waits for each claim that takes longer than expected
CERTAIN = 0.75  # probability from which an ending counts as certain
PACES = 16  # times between two claims that are remembered
AT_FIRST = 8  # more attempts in each slot, until a pace is known
MORE = 2.0  # times the pace, because larger claims make it faster
SHORTEST = 1e-6  # seconds that anything took: a coarse clock, or one that a test stops, says 0
MOMENT = 0.0001  # seconds by which a look comes late, because one that comes early sees nothing


@dataclass(frozen=True, slots=True)
class Outlook:
    """How many slots will be free in time, and when to look again if nothing ends until then.

    ``at`` is a moment of the clock that the attempts' beginnings are told in; infinite if no
    attempt comes closer to its end by getting older.
    """

    jobs: int
    at: float


class Ahead:
    """Remembers what jobs and claims took, and says how many jobs to claim ahead."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        #: For each job that ends, its task and how long its attempt lasted, in seconds. The next
        #: outlook takes note of them: no-op jobs end faster than a method can be called for each.
        self.ended: deque[tuple[str, float]] = deque(maxlen=NEWS)
        # What the last ones took, in seconds.
        self._tasks: dict[str, deque[float]] = {}
        self._jobs: deque[float] = deque(maxlen=ATTEMPTS)
        self._claims: deque[float] = deque(maxlen=CLAIMS)
        self._paces: deque[float] = deque(maxlen=PACES)
        self._thrown: float | None = None
        #: How long a claim takes, in seconds; 0 while nothing is known.
        self.claim_takes = 0.0

    def claim_took(self, seconds: float) -> None:
        """Note how long a claim took that brought jobs."""
        self._claims.append(seconds)
        claims = sorted(self._claims)
        self.claim_takes = claims[int(len(claims) * USUAL_CLAIM)]

    def got_through(self, jobs: int, seconds: float) -> None:
        """Note how many attempts ended in this time, in which there were jobs throughout."""
        self._paces.append(max(seconds / jobs, SHORTEST))

    def outlook(
        self, running: Collection[tuple[str, float]], now: float, *, idle: int = 0
    ) -> Outlook:
        """Return how many slots will be free within the horizon.

        ``running`` holds each attempt's task and its beginning. ``idle`` is the number of idle
        slots: they will have been taken, and be free again, if jobs are short.
        """
        self._note_ended()
        takes = self.claim_takes
        if not takes:
            return Outlook(0, math.inf)
        horizon = max(CLAIMS_AHEAD * takes, LEAST_HORIZON)
        jobs = sorted(self._jobs)
        tasks = {task: sorted(self._tasks.get(task, ())) for task in {task for task, _ in running}}
        ends, again, look = 0.0, _expected_of_new(jobs, horizon) * idle, math.inf
        for (task, began), count in Counter(running).items():  # many have not begun yet
            lengths = tasks[task]
            if not lengths:
                continue
            expected, times, wait = _expected(lengths, now - began, horizon, jobs)
            ends += count * expected
            again += count * expected * times
            look = min(look, now + wait)
        if self._paces:
            again = min(again, MORE * horizon / statistics.median(self._paces))
        else:
            again = min(again, AT_FIRST * (len(running) + idle))
        ends += again
        if self._thrown is None:
            self._thrown = self._dice.random()
        return Outlook(min(MAX_AHEAD, math.floor(ends + self._thrown)), look)

    def _note_ended(self) -> None:
        if not self.ended:
            return
        for task, seconds in self.ended:
            lengths = self._tasks.get(task)
            if lengths is None:
                lengths = self._tasks[task] = deque(maxlen=ATTEMPTS)
            lengths.append(seconds)
            self._jobs.append(seconds)
        self.ended.clear()
        self._thrown = None  # rounded anew now, and not at each look at the same slots


def _expected(
    lengths: list[float], age: float, horizon: float, jobs: list[float]
) -> tuple[float, float, float]:
    """Return how likely an attempt ends in time, and how many end after it in the same slot.

    The third number is how long it is until its end is more likely.
    ``lengths`` are those of its task, ``jobs`` those of all, in ascending order.
    """
    count = len(lengths)
    outlived = bisect_right(lengths, age)
    if outlived == count:  # rule 3
        return (1.0 if age <= lengths[-1] + horizon else 0.0), 0.0, math.inf
    in_time = bisect_right(lengths, age + horizon)
    likely = lengths[outlived + int((count - outlived) * CERTAIN)] - horizon - age + MOMENT
    if in_time == outlived:
        return 0.0, 0.0, max(MOMENT, likely)
    share = (in_time - outlived) / (count - outlived)
    look = math.inf
    if share >= CERTAIN:
        share = 1.0
    elif likely > 0:
        look = max(MOMENT, likely)
    if age + horizon - lengths[outlived] < jobs[0]:
        return share, 0.0, look
    left = age + horizon - sum(lengths[outlived:in_time]) / (in_time - outlived)
    return share, _expected_of_new(jobs, left), look


def _expected_of_new(lengths: list[float], horizon: float) -> float:
    """Return how many attempts that begin one after the other will end (rule 4)."""
    in_time = bisect_right(lengths, horizon)
    if not in_time:
        return 0.0
    share: float = in_time / len(lengths)
    times: float = horizon / max(sum(lengths[:in_time]) / in_time, SHORTEST)
    return times if share == 1.0 else share * (1.0 - share**times) / (1.0 - share)
