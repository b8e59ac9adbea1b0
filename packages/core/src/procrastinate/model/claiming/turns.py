"""Which partition a worker claims from next, and when all partitions are swept.

A claim names one partition. A worker asks `next` for it, claims, and tells `claimed` what came of
that. A *sweep* is one read over all partitions, for jobs that were not announced and for schedules.
`Turns` is a value without a clock: everything that happens makes a new one.

Rules

1. A partition is *hot* if the last claim from it left something behind, or if it was named since:
   by a notification, a release or a sweep. Only hot partitions are claimed from.
2. Claims stay with a partition while they come back full, because big claims are the cheap ones. If
   others are hot, they stay for `STAY` at the most.
3. Those that were heard of come first, in that order. After `HEARD_IN_A_ROW` of them it is the turn
   of one that has a backlog, so that news do not keep it waiting for ever.
4. A claim may leave something to look at later (what another transaction is deciding about). Then
   the partition is hot again when that is due.
5. A partition that is *away* (it failed while the database itself answers) is passed over, and
   stays hot. Others go on. (`procrastinate.worker.database.outages` finds out when it is back.)
6. A sweep is due at this worker's turn of the polling interval, and at once after a gap in what was
   heard. It waits until nothing is hot, or until it is late by `LATE` intervals. Sweeps take a
   tenth of the time at the most: a sweep that took a second is not repeated within ten.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from procrastinate.model.values import replace

STAY = 0.05  # seconds
HEARD_IN_A_ROW = 8  # claims
SHARE_OF_SWEEPS = 10  # times as long as a sweep took passes from its beginning to the next one
LATE = 2.0  # intervals
ASK_EVERY = 0.25  # seconds, while a sweep waits because partitions are hot


@dataclass(frozen=True)
class Turns:
    """What is known of the partitions, and what follows from it."""

    heard: tuple[int, ...] = ()  # hot ones that were named, the first one first
    backlog: tuple[int, ...] = ()  # others whose last claim left something, the first one first
    staying: int | None = None  # the partition of the claim under way, or of full ones so far
    until: float = 0.0  # when the stay ends if others are hot
    in_a_row: int = 0  # claims from `heard` since one from `backlog`
    looks: Mapping[int, float] = field(default_factory=dict)  # when to look again (rule 4)
    sweep_at: float = -math.inf  # when the next sweep is due
    sweep_from: float = -math.inf  # the earliest time that rule 6 allows
    interval: float = 0.0  # seconds between the sweeps of a fleet

    # What was heard

    def heard_of(self, partition: int) -> Turns:
        """Note that a job of a partition became ready."""
        if partition in self.heard:
            return self
        backlog = tuple(each for each in self.backlog if each != partition)
        return replace(self, heard=(*self.heard, partition), backlog=backlog)

    def gap_in_what_was_heard(self) -> Turns:
        """Let a sweep be due at once."""
        return replace(self, sweep_at=-math.inf)

    # Claims

    def next(self, now: float, away: Container[int] = ()) -> int | None:
        """Return the partition to claim from, or None if there is no reason to claim."""
        others = self._others(now, away)
        if self.staying is not None and (now < self.until or not others):
            return self.staying
        return others[0] if others else None

    def hot(self, now: float, away: Container[int] = ()) -> tuple[int, ...]:
        """Return the partitions that there is a reason to claim from."""
        staying = () if self.staying is None else (self.staying,)
        return (*staying, *self._others(now, away))

    def _others(self, now: float, away: Container[int]) -> tuple[int, ...]:
        """Return the hot partitions beside the one stayed with, in order of their turns."""
        due = tuple(each for each, at in self.looks.items() if now >= at and each not in self.heard)
        heard = (*self.heard, *due)
        groups = (heard, self.backlog) if self.in_a_row < HEARD_IN_A_ROW else (self.backlog, heard)
        return tuple(
            each for each in (*groups[0], *groups[1]) if each != self.staying and each not in away
        )

    def began(self, partition: int, now: float) -> Turns:
        """Note that a claim from a partition begins: what is heard from now on is news of it."""
        turns = replace(
            self,
            heard=tuple(each for each in self.heard if each != partition),
            looks={each: at for each, at in self.looks.items() if each != partition},
        )
        if partition == self.staying:
            return turns
        backlog = tuple(each for each in self.backlog if each != partition)
        return replace(
            turns,
            backlog=backlog if self.staying is None else (*backlog, self.staying),
            staying=partition,
            until=now + STAY,
            in_a_row=0 if partition in self.backlog else self.in_a_row + 1,
        )

    def claimed(self, partition: int, *, more: bool, again_at: float = math.inf) -> Turns:
        """Note what a claim left: ``more`` ready jobs perhaps, or something to look at later."""
        if more:
            return self
        looks = self.looks if again_at == math.inf else {**self.looks, partition: again_at}
        return replace(self, looks=looks, staying=None)

    def failed(self, partition: int) -> Turns:
        """Note that a claim failed: the partition is still hot, and others are next."""
        return replace(self, staying=None).heard_of(partition)

    def seconds_to_next_claim(self, now: float, away: Container[int] = ()) -> float:
        """Return how long to wait if nothing is heard: 0 if there is a reason to claim."""
        if self.next(now, away) is not None:
            return 0.0
        times = (at for each, at in self.looks.items() if each not in away)
        return max(0.0, min(times, default=math.inf) - now)

    # Sweeps

    def sweep_due_at(self, now: float, away: Container[int] = ()) -> float:
        """Return when to sweep if nothing happens before (rule 6)."""
        is_busy = self.next(now, away) is not None
        due = self.sweep_at + LATE * self.interval if is_busy else self.sweep_at
        return max(due, self.sweep_from)

    def ask_again_at(self, now: float, away: Container[int] = ()) -> float:
        """Return when to ask again whether a sweep is due: what is hot may not be so any more."""
        due = self.sweep_due_at(now, away)
        return min(due, max(self.sweep_at, self.sweep_from, now + ASK_EVERY))

    def sweep_began(self) -> Turns:
        """Note that a sweep begins: a gap from now on is a reason for another one."""
        return replace(self, sweep_at=math.inf)

    def turn_moved(self, next_at: float) -> Turns:
        """Note when the next turn of this worker is, as others have come or gone."""
        return replace(self, sweep_at=next_at)

    def swept(self, found: Iterable[int], *, began: float, now: float, next_at: float) -> Turns:
        """Note in which partitions a sweep found ready jobs, and when the next one is due."""
        wait = SHARE_OF_SWEEPS * (now - began)
        sweep_at = min(self.sweep_at, next_at)
        turns = replace(self, sweep_at=sweep_at, sweep_from=began + wait)
        for partition in found:
            turns = turns.heard_of(partition)
        return turns


def seconds_to_turn(
    now: datetime, *, interval: float, rank: int, live: int, has_swept: bool
) -> float:
    """Return how long until the next turn of the worker of this rank, from 0, among those alive.

    Each of them has one of as many intervals of the server's clock. If it ``has_swept``, a turn
    that begins within half an interval is the one that a timer rang for too early.
    """
    moment = now.timestamp()
    at = math.floor(moment / interval + (0.5 if has_swept else 0.0)) + 1
    return (at + (rank - at) % live) * interval - moment
