"""Two workers that claim ahead, on a clock that is moved: no job waits beside an idle slot.

The database is a list, a claim takes as long as it is told to, and everything else is the worker's
own decisions (`procrastinate.model.claiming.ahead` and `procrastinate.model.claiming.holding`).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from procrastinate.model.claiming import holding
from procrastinate.model.claiming.ahead import Ahead

CLAIM = 0.002  # seconds; half of it to the server
BETWEEN = 0.001  # seconds that a look, a hand-back or a notification takes


@dataclass
class Wait:
    """From a claim's answer to the job's start, or until it was handed back."""

    worker: int
    began: float
    ended: float
    handed_back: bool


@dataclass
class World:
    """The queue, the clock, and the ledger."""

    now: float = 0.0
    ready: list[float] = field(default_factory=list)  # lengths of jobs, in order
    waits: list[Wait] = field(default_factory=list)
    ran: int = 0
    workers: list[Worker] = field(default_factory=list)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + max(seconds, 1e-6), next(self._numbers), call))

    def run(self) -> None:
        while self._events:
            self.now, _, call = heapq.heappop(self._events)
            call()

    def defer(self, lengths: Sequence[float]) -> None:
        self.ready += lengths
        for worker in self.workers:
            self.after(BETWEEN, worker.notified)


class Worker:
    """Some slots; what `Shift` and `Backlog` do, without a database."""

    def __init__(self, world: World, number: int, slots: int) -> None:
        self.world = world
        self.number = number
        self.slots = slots
        self.ahead = Ahead(random.Random(number))
        self.running: list[float] = []  # beginnings
        self.waiting: list[tuple[float, float]] = []  # lengths, and when they came
        self.idle: list[tuple[float, float]] = []  # while a slot had nothing to do
        self._idle_since: float | None = 0.0
        self._busy = False  # whether it speaks with the database
        self._due = True
        self._short = False
        self._handed_back = False
        self._decision = 0

    def notified(self) -> None:
        self._due = True
        self._fetch()

    def _room(self) -> int:
        taken = len(self.running) + len(self.waiting)
        surplus = max(0, taken - self.slots)
        jobs = 0
        if not (self._handed_back or (self._short and taken)):
            running = [("task", began) for began in self.running]
            now = self.world.now
            found = self.ahead.outlook(running, now, idle=self.slots - len(self.running))
            jobs = int(found.jobs > self.slots) if self._short else found.jobs
            if found.at < now + 10.0:
                self.world.after(found.at - now, self._fetch)
        if surplus > jobs // 2:
            return 0
        return max(0, self.slots - taken) + jobs - surplus

    def _fetch(self) -> None:
        if self._busy or not self._due:
            return
        room = self._room()
        if room > 0:
            self._busy, self._due = True, False
            sent = self.world.now
            self.world.after(CLAIM / 2, lambda: self._claim(room, sent))

    def _claim(self, room: int, sent: float) -> None:
        lengths, self.world.ready[:room] = self.world.ready[:room], []
        self.world.after(CLAIM / 2, lambda: self._take(lengths, room, sent))

    def _take(self, lengths: Sequence[float], room: int, sent: float) -> None:
        self._busy = False
        self._short = len(lengths) < room
        if lengths:
            self.ahead.claim_took(self.world.now - sent)
        if not self._short:
            self._due = True
        self.waiting += [(length, self.world.now) for length in lengths]
        self._fill()
        self._decide()
        self._fetch()

    def _fill(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            length, came = self.waiting.pop(0)
            now = self.world.now
            self.world.waits.append(Wait(self.number, came, now, handed_back=False))
            self.running.append(now)
            self.world.after(length, lambda began=now: self._end(began))
        self._note_idle()

    def _end(self, began: float) -> None:
        self.running.remove(began)
        self.ahead.ended.append(("task", self.world.now - began))
        self.world.ran += 1
        self._handed_back = False
        self._fill()
        self._fetch()

    def _note_idle(self) -> None:
        idle = len(self.running) < self.slots
        if idle and self._idle_since is None:
            self._idle_since = self.world.now
        elif not idle and self._idle_since is not None:
            self.idle.append((self._idle_since, self.world.now))
            self._idle_since = None

    def close(self) -> None:
        if self._idle_since is not None:
            self.idle.append((self._idle_since, self.world.now))

    def _decide(self) -> None:
        if self.waiting:
            waited = self.world.now - self.waiting[0][1]
            takes = self.ahead.claim_takes
            self._act(holding.decide(waited, claim_takes=takes, short=self._short))

    def _act(self, decision: holding.Decision) -> None:
        self._decision += 1
        if isinstance(decision, holding.HandBack):
            self._hand_back()
            return
        number = self._decision
        self.world.after(decision.seconds, lambda: number == self._decision and self._decide())
        if isinstance(decision, holding.Look):
            self.world.after(BETWEEN, self._look)

    def _look(self) -> None:
        if self.waiting:
            self._act(
                holding.after_look(
                    self.world.now - self.waiting[0][1],
                    claim_takes=self.ahead.claim_takes,
                    looking_took=BETWEEN,
                    any_ready=bool(self.world.ready),
                )
            )

    def _hand_back(self) -> None:
        lengths = [length for length, _ in self.waiting]
        for _, came in self.waiting:
            self.world.waits.append(Wait(self.number, came, self.world.now, handed_back=True))
        self.waiting.clear()
        self._handed_back = True
        self.world.after(BETWEEN, lambda: self._handed_back_arrives(lengths))

    def _handed_back_arrives(self, lengths: list[float]) -> None:
        self.world.ready[:0] = lengths
        self.world.defer([])


def exponential(mean: float, count: int) -> list[float]:
    dice = random.Random(count)
    return [dice.expovariate(1 / mean) for _ in range(count)]


def seldom_long(usual: float, long: float, count: int) -> list[float]:
    dice = random.Random(count)
    return [long if dice.randrange(20) == 0 else usual for _ in range(count)]


QUEUES = {
    "5 ms": [0.005] * 400,
    "1 ms": [0.001] * 400,
    "50 ms": [0.05] * 100,
    "900 ms": [0.9] * 30,
    "5 ms, one in 20 of 500 ms": seldom_long(0.005, 0.5, 400),
    "exponential, 5 ms": exponential(0.005, 400),
    "exponential, 50 ms": exponential(0.05, 200),
    "short ones, then long ones": [0.002] * 400 + [0.3] * 400,
}


@pytest.mark.parametrize("lengths", QUEUES.values(), ids=QUEUES)
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 400], ids=lambda batch: f"in batches of {batch}")
@pytest.mark.parametrize("slots", [1, 5], ids=["one slot each", "five slots each"])
def test_no_job_waits_claimed_for_long_while_a_slot_is_idle_anywhere(
    lengths: Sequence[float], batch: int, slots: int
) -> None:
    world = run(lengths, batch=batch, workers=[slots, slots])

    idle = [worker.idle for worker in world.workers]
    beside_idle = [
        max(
            longest_overlap(wait, spans)
            for number, spans in enumerate(idle)
            if number != wait.worker
        )
        for wait in world.waits
    ]
    handed_back = sum(wait.handed_back for wait in world.waits)
    assert world.ran == len(lengths)
    assert max(beside_idle) <= max(0.010, 2 * CLAIM)
    assert handed_back <= max(2 * slots, 0.05 * len(lengths))


def run(lengths: Sequence[float], *, batch: int, workers: Sequence[int]) -> World:
    """Run jobs that come in batches, somewhat faster than the slots get through them."""
    world = World()
    world.workers = [Worker(world, number, slots) for number, slots in enumerate(workers)]
    pause = batch * sum(lengths) / len(lengths) / sum(workers) * 0.9
    for number, first in enumerate(range(0, len(lengths), batch)):
        jobs = lengths[first : first + batch]
        world.after(number * pause, lambda jobs=jobs: world.defer(jobs))
    world.run()
    for worker in world.workers:
        worker.close()
    return world


def longest_overlap(wait: Wait, spans: Sequence[tuple[float, float]]) -> float:
    """How long a slot was idle at a stretch while this job waited."""
    return max(
        (min(wait.ended, ended) - max(wait.began, began) for began, ended in spans), default=0.0
    )


@pytest.mark.parametrize(
    ("length", "slots", "reached"),
    [(0.005, 1, 0.99), (0.05, 10, 0.98), (0.005, 20, 0.97), (0.001, 10, 0.97), (0.9, 3, 0.99)],
)
def test_slots_do_not_wait_for_the_database(length: float, slots: int, reached: float) -> None:
    count = slots * round(max(20, 2.0 / length))
    world = run([length] * count, batch=count, workers=[slots])
    needed = count * length / slots
    assert needed / world.now >= reached
