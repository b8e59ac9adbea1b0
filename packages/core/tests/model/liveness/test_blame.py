"""Who is to blame for the death of a process."""

from __future__ import annotations

import random

import pytest

from procrastinate.model.liveness import blame
from procrastinate.model.liveness.blame import CRASH_LIMIT, MOST_CRASHES, Place

HERE, ALONE, ELSEWHERE = Place


@pytest.mark.parametrize(
    ("crashes", "alone", "fails"),
    [
        (1, True, False),
        (CRASH_LIMIT - 1, True, False),
        (CRASH_LIMIT, True, True),
        (CRASH_LIMIT + 1, True, True),
        (CRASH_LIMIT, False, False),  # somebody else may have done it
        (MOST_CRASHES - 1, False, False),
        (MOST_CRASHES, False, True),
        (MOST_CRASHES, True, True),
    ],
)
def test_only_a_job_that_was_alone_is_blamed(crashes: int, alone: bool, fails: bool) -> None:
    assert blame.fails(crashes, alone=alone) is fails


@pytest.mark.parametrize(
    ("crashes", "held", "place"),
    [
        # A job with fewer than two crashes runs as any other.
        (0, [], HERE),
        (0, [0, 1, 2, 3], HERE),
        (1, [0, 1, 2, 3], HERE),
        # One suspect in a process, beside any number of others.
        (2, [], HERE),
        (2, [0, 0, 1, 1], HERE),
        (2, [2], ELSEWHERE),
        (2, [0, 3], ELSEWHERE),
        (3, [1, 2], ELSEWHERE),
        # Before the last crash it must be alone.
        (4, [], HERE),
        (4, [0], ALONE),
        (4, [1, 2, 3], ALONE),
        (14, [0], ALONE),
        # And nothing starts beside it.
        (0, [4], ELSEWHERE),
        (1, [4, 0], ELSEWHERE),
        (4, [4], ELSEWHERE),
        (4, [9], ELSEWHERE),
    ],
)
def test_where_a_claimed_job_belongs(crashes: int, held: list[int], place: Place) -> None:
    assert blame.place(crashes, held) is place


@pytest.mark.parametrize(("crashes", "may"), [(0, True), (1, False), (4, False)])
def test_only_a_job_without_a_crash_waits_claimed(crashes: int, may: bool) -> None:
    assert blame.may_wait(crashes) is may


def test_what_goes_back_does_not_come_back_at_the_same_moment() -> None:
    assert [blame.delay(chance).total_seconds() for chance in (0, 0.5, 1)] == [0.5, 1.0, 1.5]


class Farm:
    """Processes with slots, and jobs of which some kill their process, in rounds."""

    def __init__(self, seed: int, *, killers: int, innocent: int, processes: int, slots: int):
        self.random = random.Random(seed)
        jobs = killers + innocent
        self.crashes = dict.fromkeys(range(jobs), 0)
        self.killers = set(range(killers))
        self.processes, self.slots = processes, slots
        self.ended: dict[int, str] = {}

    def round(self) -> None:
        """Fill each process by the rules; those with a killer die, others do their jobs."""
        waiting = [job for job in self.crashes if job not in self.ended]
        self.random.shuffle(waiting)
        for _ in range(self.processes):
            held: list[int] = []
            for job in list(waiting):
                beside = [self.crashes[each] for each in held]
                if len(held) < self.slots and blame.place(self.crashes[job], beside) is HERE:
                    held.append(job)
                    waiting.remove(job)
            self.end_of(held)

    def end_of(self, held: list[int]) -> None:
        if self.killers.isdisjoint(held):
            self.ended.update(dict.fromkeys(held, "succeeded"))
            return
        for job in held:
            self.crashes[job] += 1
            if blame.fails(self.crashes[job], alone=len(held) == 1):
                self.ended[job] = "failed"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("killers", "innocent", "slots"), [(1, 9, 10), (1, 99, 100), (2, 56, 10), (2, 56, 100)]
)
def test_the_innocent_come_to_their_end_and_the_killers_fail(
    seed: int, killers: int, innocent: int, slots: int
) -> None:
    farm = Farm(seed, killers=killers, innocent=innocent, processes=2, slots=slots)
    for _ in range(200):
        farm.round()

    assert {job for job, end in farm.ended.items() if end == "failed"} == farm.killers
    assert len(farm.ended) == killers + innocent
