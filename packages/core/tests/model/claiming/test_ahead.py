"""How many jobs a worker claims ahead: a table of cases, with times in milliseconds."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from procrastinate.model.claiming.ahead import ATTEMPTS, CLAIMS, MAX_AHEAD, Ahead, Outlook

NOW = 1_000.0


class Dice(random.Random):
    """Throws the same number always."""

    def __init__(self, thrown: float) -> None:
        super().__init__()
        self.thrown = thrown

    def random(self) -> float:
        return self.thrown


def known(*lengths: float, claim: float = 2.0, dice: random.Random | None = None) -> Ahead:
    """What is known after attempts of such lengths and claims of 2 ms: the horizon is 4 ms."""
    ahead = Ahead(dice or Dice(0.5))
    for _ in range(CLAIMS):
        ahead.claim_took(claim / 1e3)
    for length in lengths:
        ahead.ended.append(("task", length / 1e3))
    return ahead


def outlook(ahead: Ahead, *ages: float, idle: int = 0) -> tuple[int, float]:
    """How many slots will be free, and the milliseconds until the next look."""
    found = ahead.outlook([("task", NOW - age / 1e3) for age in ages], NOW, idle=idle)
    return found.jobs, round((found.at - NOW) * 1e3, 3)


EVEN = [10.0] * ATTEMPTS
SOMETIMES_LONG = [*[5.0] * 19, 500.0]
SCATTERED = [float(n) for n in range(1, ATTEMPTS + 1)]


@pytest.mark.parametrize(
    ("lengths", "ages", "expected"),
    [
        (EVEN, [0.0], (0, 6.1)),
        (EVEN, [5.9], (0, 0.2)),
        (EVEN, [6.01], (1, math.inf)),
        (EVEN, [9.9], (1, math.inf)),
        (EVEN, [13.9], (1, math.inf)),
        (EVEN, [14.1], (0, math.inf)),
        (EVEN, [0.0, 2.0, 7.0, 8.0], (2, 4.1)),
        ([900.0] * ATTEMPTS, [0.0] * 100, (0, 896.1)),
        ([900.0] * ATTEMPTS, [400.0] * 100, (0, 496.1)),
        (SOMETIMES_LONG, [0.0], (0, 1.1)),
        (SOMETIMES_LONG, [2.0], (1, math.inf)),
        (SOMETIMES_LONG, [6.0], (0, 490.1)),
        (SOMETIMES_LONG, [497.0], (1, math.inf)),
        ([], [1.0, 2.0, 3.0], (0, math.inf)),
    ],
    ids=[
        "long before its end",
        "just before the horizon",
        "within the horizon",
        "about to end",
        "late, and so about to end",
        "later than anything that is known",
        "several",
        "a job of 900 ms is not held to save 2 ms",
        "nor behind one of a hundred slots that are in the middle of theirs",
        "usually short: long before its end",
        "usually short: its usual end is near",
        "usually short: late, so it is one of the long ones",
        "usually short: a long one's end is near",
        "a task of which nothing is known",
    ],
)
def test_a_claim_is_for_the_slots_that_will_be_free_when_it_comes_back(
    lengths: Sequence[float], ages: Sequence[float], expected: tuple[int, float]
) -> None:
    assert outlook(known(*lengths), *ages) == expected


@pytest.mark.parametrize(
    ("length", "running", "idle", "jobs"),
    [(1.0, 10, 0, 40), (1.0, 0, 10, 40), (3.0, 10, 0, 10), (0.001, 1, 0, 9)],
    ids=[
        "running",
        "not begun",
        "a little shorter than the horizon",
        "nothing is known of the pace",
    ],
)
def test_short_jobs_free_their_slot_several_times(
    length: float, running: int, idle: int, jobs: int
) -> None:
    ahead = known(*[length] * ATTEMPTS)
    found, _ = outlook(ahead, *[0.0] * running, idle=idle)
    assert found == pytest.approx(jobs, rel=0.1)


@pytest.mark.parametrize(
    ("paces", "jobs"),
    [([0.001], MAX_AHEAD), ([0.04], 200), ([0.04, 0.16, 0.01], 200), ([0.04] + [0.16] * 16, 50)],
    ids=["very fast", "known", "the median counts", "forgotten"],
)
def test_a_worker_gets_through_no_more_jobs_than_twice_what_it_lately_did(
    paces: Sequence[float], jobs: int
) -> None:
    """Jobs that take next to nothing: the worker's own work for each counts."""
    ahead = known(*[0.001] * ATTEMPTS)
    for pace in paces:
        ahead.got_through(10, 10 * pace / 1e3)
    assert outlook(ahead, 0.0)[0] == pytest.approx(jobs, abs=1)


def test_a_clock_that_stands_still_says_nothing_false() -> None:
    """Some systems' clocks move every 16 ms; a test may stop the clock."""
    ahead = known(*[0.0] * ATTEMPTS)
    ahead.got_through(10, 0.0)
    assert outlook(ahead, 0.0)[0] == 1


def test_the_pace_says_nothing_of_attempts_that_run_and_are_about_to_end() -> None:
    ahead = known(*[50.0] * ATTEMPTS)
    ahead.got_through(10, 0.044)
    assert outlook(ahead, *[47.0] * 10)[0] == 10


@pytest.mark.parametrize(
    ("thrown", "jobs"), [(0.0, 0), (0.87, 0), (0.88, 1), (0.99, 1)], ids=lambda value: str(value)
)
def test_scattered_lengths_are_rounded_at_random_and_not_up(thrown: float, jobs: int) -> None:
    # Four of 32 attempts ended within 4 ms: 0.125.
    assert outlook(known(*SCATTERED, dice=Dice(thrown)), 0.0)[0] == jobs


def test_over_many_attempts_the_rounding_is_fair() -> None:
    ahead = known(*SCATTERED, dice=random.Random(7))
    claimed = 0
    for n in range(8_000):
        claimed += outlook(ahead, 0.0)[0]
        ahead.ended.append(("task", SCATTERED[n % ATTEMPTS] / 1e3))
    assert claimed / 8_000 == pytest.approx(0.125, rel=0.1)


def test_the_dice_are_thrown_once_for_each_attempt_and_not_for_each_look() -> None:
    ahead = known(*SCATTERED, dice=random.Random(7))
    assert len({outlook(ahead, 0.0) for _ in range(100)}) == 1


def test_one_slot_in_ten_of_exponential_jobs_of_50_ms_is_expected_to_be_free() -> None:
    dice = random.Random(3)
    ahead = known(dice=dice)
    claimed = 0
    for _ in range(4_000):
        ahead.ended.append(("task", dice.expovariate(1 / 0.050)))
        claimed += outlook(ahead, *[20.0] * 10)[0]
    assert claimed / 4_000 == pytest.approx(10 * 4 / 50, rel=0.15)


def test_nothing_is_claimed_ahead_before_a_claim_is_known() -> None:
    ahead = Ahead(Dice(0.9))
    ahead.ended.append(("task", 0.001))
    assert ahead.outlook([("task", NOW)], NOW, idle=5) == Outlook(0, math.inf)


def test_each_task_has_lengths_of_its_own() -> None:
    ahead = known(*EVEN)
    ahead.ended.append(("slow", 10.0))
    running = [("task", NOW - 0.008), ("slow", NOW - 0.008), ("new", NOW - 0.008)]
    assert ahead.outlook(running, NOW).jobs == 1


def test_what_tasks_took_is_forgotten_when_they_change() -> None:
    ahead = known(*[500.0] * ATTEMPTS)
    for _ in range(ATTEMPTS):
        ahead.ended.append(("task", 0.010))
    assert outlook(ahead, 7.0) == (1, math.inf)


def test_a_single_slow_claim_does_not_change_how_long_claims_take() -> None:
    ahead = known(*EVEN)
    ahead.claim_took(2.0)
    assert ahead.claim_takes == 0.002
