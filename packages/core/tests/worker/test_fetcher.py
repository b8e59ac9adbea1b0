"""The fetcher asks the plan, runs what it says, and tells it; nothing that goes astray is lost.

Which steps a plan says is in ``tests/model/claiming/test_scans.py``.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest

from procrastinate.errors import ConnectionLost, InvalidData
from procrastinate.model.claiming.scan_memory import FULL_SCAN_AT_LEAST_AFTER
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.claiming.scans import (
    EVERYWHERE_EVERY,
    LOCKS_EXPECTED_FOR,
    LOOK_AT_SCHEDULE_EVERY,
    PROMOTED_AT_ONCE,
    SCANNED_IN_PASSING,
    WITHOUT_LEVEL,
)
from procrastinate.model.job import Job, Status
from procrastinate.storage.claim import Claim, Promotion
from procrastinate.worker.claiming.fetcher import Fetcher


class Scripted:
    """A gateway that answers a claim by its scan's kind and other flows by name, and notes both."""

    def __init__(self) -> None:
        self.connector = type("Codec", (), {"json_loads": staticmethod(dict)})()
        self.ran: list[str] = []
        self.scans: list[Scan] = []
        self.params: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.answers: dict[str, Any] = {
            "promote_due": Promotion(0, None),
            "ready_queues": ["q"],
            **dict.fromkeys(["full", "level", "above"], Claim([])),
            "held_jobs": [],
            "hand_back": set(),
        }
        self.meanwhile: Callable[[], None] = lambda: None

    async def run_async(self, flow: Any, **options: Any) -> Any:
        self.params, self.options = inspect.getgeneratorlocals(flow), options
        flow.close()
        name = flow.__name__
        if name == "claim":
            self.scans.append(self.params["scan"])
            name = self.scans[-1].kind.name.lower()
        self.ran.append(name)
        self.meanwhile()
        answer = self.answers[name]
        if callable(answer):
            answer = answer(self.scans[-1])
        if isinstance(answer, Exception):
            raise answer
        return answer


def jobs(*ids: int) -> Claim:
    return Claim([Job(id, Status.DOING, "q", "task", {}) for id in ids])


@pytest.fixture
def gateway() -> Scripted:
    return Scripted()


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def fetcher(gateway: Scripted, clock: list[float]) -> Fetcher:
    return Fetcher(gateway, 1, None, clock=lambda: clock[0])  # type: ignore[arg-type]


@pytest.fixture
def claims(gateway: Scripted, fetcher: Fetcher) -> Callable[[], Any]:
    """Make a claim of two jobs; returns the kinds of its scans."""

    async def claim() -> list[str]:
        gateway.ran.clear()
        await fetcher.claim(2, known=())
        return [name for name in gateway.ran if name in ("full", "level", "above")]

    return claim


async def test_a_busy_queue_is_scanned_from_its_mark_between_full_scans(
    gateway: Scripted, clock: list[float], claims: Any
) -> None:
    gateway.answers.update(full=jobs(1, 2), level=jobs(3, 4))
    assert [await claims() for _ in range(3)] == [["full"], ["level"], ["level"]]
    assert gateway.scans[-1].lows == (2,)
    clock[0] += FULL_SCAN_AT_LEAST_AFTER
    assert await claims() == ["full"]


async def test_what_a_short_scan_brought_starts_before_the_full_scan_that_it_owes(
    gateway: Scripted, fetcher: Fetcher, claims: Any
) -> None:
    gateway.answers.update(full=jobs(1, 2), level=jobs(3))
    await claims()
    assert await claims() == ["level"]
    assert fetcher.seconds_to_next_look == 0
    gateway.answers.update(full=jobs(7))
    assert await claims() == ["full"]
    assert fetcher.seconds_to_next_look > 0


async def test_a_higher_priority_is_looked_for_while_full_scans_are_slow(
    gateway: Scripted, clock: list[float], claims: Any
) -> None:
    """So that a queue full of dead entries is read from its mark for most of the time."""
    gateway.answers.update(full=jobs(1, 2), level=jobs(3, 4))

    def take_long() -> None:
        clock[0] += 0.5 if gateway.ran[-1] == "full" else 0.01

    gateway.meanwhile = take_long
    assert await claims() == ["full"]
    made = [await claims() for _ in range(400)]
    first = made.index(["full"])
    assert {tuple(scans) for scans in made[:first]} == {("level",), ("above", "level")}
    assert 3.9 < 0.01 * sum(map(len, made[:first])) < 4.1
    assert made[:first].count(["level"]) / first > 0.7


async def test_a_scan_of_the_level_that_brings_nothing_is_followed_by_a_full_one_at_once(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers.update(full=jobs(1, 2))
    await fetcher.claim(2, known=())
    gateway.answers.update(full=jobs(7))
    claim = await fetcher.claim(2, known=())

    assert gateway.ran[-3:] == ["level", "ready_queues", "full"]
    assert [job.id for job in claim.jobs] == [7]


async def test_what_stands_above_the_level_comes_before_it_in_one_claim(
    gateway: Scripted, fetcher: Fetcher, clock: list[float]
) -> None:
    def take_long() -> None:
        clock[0] += 0.1 if gateway.ran[-1] == "full" else 0.0

    gateway.meanwhile = take_long
    gateway.answers.update(full=jobs(1, 2, 3))
    await fetcher.claim(3, known=())
    clock[0] += 0.05
    urgent = Job(9, Status.DOING, "q", "task", {}, priority=1)
    gateway.answers.update(above=Claim([urgent]), level=jobs(4, 5))
    claim = await fetcher.claim(3, known=())
    assert [job.id for job in claim.jobs] == [9, 4, 5]
    assert [(scan.kind, scan.limit) for scan in gateway.scans[-2:]] == [
        (Kind.ABOVE, 3),
        (Kind.LEVEL, 2),
    ]


async def test_once_nothing_was_left_only_the_queues_heard_of_are_scanned(
    gateway: Scripted, fetcher: Fetcher, claims: Any
) -> None:
    await claims()
    fetcher.heard_of("news")
    fetcher.heard_of("more")
    assert await claims() == ["full"]
    assert gateway.ran == ["full"]
    assert gateway.scans[-1].queues == ("more", "news")


async def test_what_nobody_announces_is_found_however_much_is_heard_of_elsewhere(
    gateway: Scripted, fetcher: Fetcher, clock: list[float]
) -> None:
    await fetcher.claim(2, known=())
    gateway.ran.clear()
    for _ in range(2):
        clock[0] += EVERYWHERE_EVERY / 2
        fetcher.heard_of("news")
        await fetcher.claim(2, known=())

    assert gateway.ran == ["full", "ready_queues", "full"]


async def test_a_gap_in_what_was_heard_makes_it_scan_all_queues(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    await fetcher.claim(2, known=())
    fetcher.heard_of("news")
    fetcher.look_at_everything()
    gateway.ran.clear()
    await fetcher.claim(2, known=())

    assert gateway.ran == ["promote_due", "ready_queues", "full"]


async def test_a_job_with_a_lock_makes_it_claim_those_too_for_a_while(
    gateway: Scripted, fetcher: Fetcher, clock: list[float]
) -> None:
    gateway.answers.update(
        full=lambda scan: jobs(1) if scan.with_locks else Claim(jobs(2).jobs, left=1)
    )
    claim = await fetcher.claim(5, known=())
    assert [job.id for job in claim.jobs] == [1, 2]  # in order
    assert gateway.ran == ["promote_due", "ready_queues", "full", "full"]
    assert [scan.limit for scan in gateway.scans] == [5, 4]

    gateway.ran.clear()
    fetcher.look_at_everything()
    await fetcher.claim(5, known=())
    assert gateway.ran.count("full") == 1

    gateway.ran.clear()
    fetcher.look_at_everything()
    clock[0] += LOCKS_EXPECTED_FOR
    await fetcher.claim(5, known=())
    assert gateway.ran.count("full") == 2


async def test_a_claim_that_only_parked_jobs_looks_again_itself(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    answers = iter([Claim([], parked=5), Claim([], parked=500), jobs(9)])
    gateway.answers["full"] = lambda scan: next(answers)
    claim = await fetcher.claim(10, known=())

    assert [job.id for job in claim.jobs] == [9]
    assert [scan.scanned for scan in gateway.scans] == [0, SCANNED_IN_PASSING, SCANNED_IN_PASSING]


async def test_the_level_is_left_out_while_a_full_scan_is_quicker(
    gateway: Scripted, clock: list[float], claims: Any
) -> None:
    """Above its mark are thousands of parked jobs; until there is a backlog again."""
    gateway.answers.update(full=jobs(1, 2))
    seconds = {"level": 0.01, "full": 0.003}

    def take_time() -> None:
        clock[0] += seconds.get(gateway.ran[-1], 0.0)

    gateway.meanwhile = take_time
    assert await claims() == ["full"]
    gateway.answers.update(full=jobs(3))
    assert await claims() == ["level", "full"]
    assert await claims() == ["full"]
    gateway.answers.update(full=jobs(4, 5))
    assert await claims() == ["full"]
    gateway.answers.update(full=jobs(6))
    assert await claims() == ["level", "full"]
    seconds["full"] = 0.05
    assert await claims() == ["full"]
    assert await claims() == ["level", "full"]
    seconds["full"] = 0.003
    assert await claims() == ["level", "full"]
    clock[0] += WITHOUT_LEVEL
    assert await claims() == ["full"]
    assert await claims() == ["level", "full"]


async def test_jobs_that_stay_undecided_are_looked_at_less_and_less_often(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers["full"] = Claim([], undecided=1)
    waits = []
    for _ in range(8):
        await fetcher.claim(10, known=())
        assert fetcher.unsure
        waits.append(fetcher.seconds_to_next_look)
    gateway.answers["full"] = Claim([])
    await fetcher.claim(10, known=())

    assert waits == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert not fetcher.unsure


@pytest.mark.parametrize("news", ["hear_of_schedule", "look_at_everything"])
async def test_news_of_the_schedule_during_a_look_at_it_is_not_forgotten(
    gateway: Scripted, fetcher: Fetcher, news: str
) -> None:
    gateway.meanwhile = getattr(fetcher, news)
    await fetcher.claim(1, known=())

    assert fetcher.seconds_to_next_look == 0


async def test_the_schedule_is_looked_at_when_the_next_job_is_due_and_at_least_so_often(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    await fetcher.claim(1, known=())
    assert fetcher.seconds_to_next_look == LOOK_AT_SCHEDULE_EVERY

    gateway.answers["promote_due"] = Promotion(0, 0.25)
    fetcher.hear_of_schedule()
    await fetcher.claim(1, known=())
    assert fetcher.seconds_to_next_look == 0.25


async def test_a_claim_promotes_one_batch_of_due_jobs_and_the_next_claim_the_next_one(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers["promote_due"] = Promotion(PROMOTED_AT_ONCE, 0.0)
    for _ in range(2):
        gateway.ran.clear()
        await fetcher.claim(1, known=())
        assert gateway.ran.count("promote_due") == 1
        assert gateway.ran[-1] == "full"
        assert fetcher.seconds_to_next_look == 0


async def test_a_promotion_that_fails_is_logged_once_and_stops_no_claim(
    gateway: Scripted, fetcher: Fetcher, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    gateway.answers.update(promote_due=InvalidData("index row too large"), full=jobs(1))
    for _ in range(4):
        assert [job.id for job in (await fetcher.claim(1, known=())).jobs] == [1]
        fetcher.look_at_everything()  # a gap makes the schedule due
        clock[0] += 60
    warned = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert [each.getMessage() for each in warned] == [
        "scheduled jobs cannot be made ready for now: index row too large"
    ]


async def test_after_a_lost_answer_unknown_jobs_are_handed_back(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers.update(full=ConnectionLost("cut"), held_jobs=jobs(1, 2).jobs)
    with pytest.raises(ConnectionLost):
        await fetcher.claim(1, known=())
    gateway.answers.update(full=jobs(3))
    await fetcher.claim(1, known={1})

    assert gateway.ran[-5:] == ["held_jobs", "hand_back", "promote_due", "ready_queues", "full"]


async def test_unknown_jobs_that_end_instead_are_deleted_where_the_worker_keeps_none(
    gateway: Scripted,
) -> None:
    fetcher = Fetcher(
        gateway,  # type: ignore[arg-type]
        1,
        None,
        delete_ended=True,
        keeps=lambda name: name == "task",
    )
    gateway.answers.update(full=ConnectionLost("cut"), held_jobs=jobs(1).jobs)
    with pytest.raises(ConnectionLost):
        await fetcher.claim(1, known=())
    await fetcher.hand_back_lost(known=())

    assert gateway.ran[-1] == "hand_back"
    assert gateway.params["delete_ended"] is True
    assert gateway.params["keeps"]("task"), "a job of a task that keeps results stays"
    assert gateway.options == {"transaction": True}


async def test_no_ready_queue_means_no_claim(gateway: Scripted, fetcher: Fetcher) -> None:
    gateway.answers["ready_queues"] = []
    claim = await fetcher.claim(5, known=())

    assert claim.jobs == []
    assert "full" not in gateway.ran
