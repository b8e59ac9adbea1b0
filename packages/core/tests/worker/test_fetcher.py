"""The fetcher's memory: nothing that is heard while a query is under way is forgotten."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from procrastinate.errors import ConnectionLost
from procrastinate.model.job import Job, Status
from procrastinate.model.scans import (
    EVERYWHERE_EVERY,
    FULL_SCAN_EVERY,
    LOCKS_EXPECTED_FOR,
    LOOK_AT_SCHEDULE_EVERY,
    SCANNED_IN_PASSING,
    WITHOUT_MARKS,
    Mark,
)
from procrastinate.storage.claim import Claim, Promotion
from procrastinate.storage.statements import Statements
from procrastinate.worker.fetcher import Fetcher


class Scripted:
    """A gateway that answers by the flow's name, and notes which flows ran."""

    def __init__(self) -> None:
        self.sql = Statements()
        self.connector = type("Codec", (), {"json_loads": staticmethod(dict)})()
        self.ran: list[str] = []
        self.params: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.answers: dict[str, Any] = {
            "promote_due": Promotion(0, None),
            "ready_queues": ["q"],
            "claim_full": Claim([]),
            "claim_marked": Claim([]),
            "held_jobs": [],
            "hand_back": set(),
        }
        self.meanwhile: Callable[[], None] = lambda: None

    async def run_async(self, flow: Any, **options: Any) -> Any:
        self.params, self.options = inspect.getgeneratorlocals(flow), options
        flow.close()
        self.ran.append(flow.__name__)
        self.meanwhile()
        answer = self.answers[flow.__name__]
        if callable(answer):
            answer = answer(self.params["unlocked_only"])
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


async def test_a_busy_queue_is_scanned_from_its_mark_between_full_scans(
    gateway: Scripted, fetcher: Fetcher, clock: list[float]
) -> None:
    gateway.answers.update(claim_full=jobs(1, 2), claim_marked=jobs(3, 4))
    for _ in range(3):
        await fetcher.claim(2, known=())
    clock[0] += FULL_SCAN_EVERY[0]
    await fetcher.claim(2, known=())

    assert [name for name in gateway.ran if name.startswith("claim")] == [
        "claim_full",
        "claim_marked",
        "claim_marked",
        "claim_full",
    ]


async def test_what_a_short_marked_scan_brought_starts_before_the_full_scan_that_it_owes(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers.update(claim_full=jobs(1, 2), claim_marked=jobs(3))
    await fetcher.claim(2, known=())
    gateway.answers.update(claim_full=jobs(7))
    claims = [await fetcher.claim(2, known=())]
    assert fetcher.seconds_to_next_look == 0
    claims.append(await fetcher.claim(2, known=()))

    assert [[job.id for job in claim.jobs] for claim in claims] == [[3], [7]]
    assert fetcher.seconds_to_next_look > 0


async def test_full_scans_that_take_long_are_made_less_often(
    gateway: Scripted, fetcher: Fetcher, clock: list[float]
) -> None:
    """So that a queue full of dead entries is read from its mark for most of the time."""
    gateway.answers.update(claim_full=jobs(1, 2), claim_marked=jobs(3))

    def take_long() -> None:
        if gateway.ran[-1] == "claim_full":
            clock[0] += 0.5

    gateway.meanwhile = take_long
    await fetcher.claim(2, known=())
    gateway.ran.clear()
    await fetcher.claim(2, known=())
    assert gateway.ran == ["claim_marked"]
    assert fetcher.seconds_to_next_look == 5.0  # until the scan that this short one owes
    clock[0] += 4.9
    await fetcher.claim(2, known=())
    assert gateway.ran == ["claim_marked"] * 2
    clock[0] += 0.1
    await fetcher.claim(2, known=())
    assert gateway.ran[-1] == "claim_full"


async def test_a_marked_scan_that_brings_nothing_is_followed_by_a_full_one_at_once(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers.update(claim_full=jobs(1, 2))
    await fetcher.claim(2, known=())
    gateway.answers.update(claim_full=jobs(7))
    claim = await fetcher.claim(2, known=())

    assert gateway.ran[-3:] == ["claim_marked", "ready_queues", "claim_full"]
    assert [job.id for job in claim.jobs] == [7]


async def test_once_nothing_was_left_only_the_queues_heard_of_are_scanned(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    await fetcher.claim(2, known=())
    fetcher.heard_of("news")
    fetcher.heard_of("more")
    gateway.ran.clear()
    await fetcher.claim(2, known=())

    assert gateway.ran == ["claim_full"]
    assert gateway.params["queues"] == ("more", "news")


async def test_what_nobody_announces_is_found_however_much_is_heard_of_elsewhere(
    gateway: Scripted, fetcher: Fetcher, clock: list[float]
) -> None:
    await fetcher.claim(2, known=())
    gateway.ran.clear()
    for _ in range(2):
        clock[0] += EVERYWHERE_EVERY / 2
        fetcher.heard_of("news")
        await fetcher.claim(2, known=())

    assert gateway.ran == ["claim_full", "ready_queues", "claim_full"]


@pytest.mark.parametrize("left", [jobs(1, 2), Claim([], undecided=1)])
async def test_while_there_may_be_more_all_queues_are_scanned(
    gateway: Scripted, fetcher: Fetcher, left: Claim
) -> None:
    gateway.answers.update(claim_full=left)
    await fetcher.claim(2, known=())
    fetcher.heard_of("news")
    gateway.ran.clear()
    await fetcher.claim(2, known=())

    assert gateway.ran == ["ready_queues", "claim_full"]


async def test_a_gap_in_what_was_heard_makes_it_scan_all_queues(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    await fetcher.claim(2, known=())
    fetcher.heard_of("news")
    fetcher.look_at_everything()
    gateway.ran.clear()
    await fetcher.claim(2, known=())

    assert gateway.ran == ["promote_due", "ready_queues", "claim_full"]


async def test_a_job_with_a_lock_makes_it_claim_those_too_for_a_while(
    gateway: Scripted, fetcher: Fetcher, clock: list[float]
) -> None:
    def claimed(unlocked_only: bool) -> Claim:
        return Claim(jobs(2).jobs, left=1) if unlocked_only else jobs(1)

    gateway.answers.update(claim_full=claimed)
    claim = await fetcher.claim(5, known=())
    assert [job.id for job in claim.jobs] == [1, 2]  # in order
    assert gateway.ran[-2:] == ["claim_full", "claim_full"]

    gateway.ran.clear()
    fetcher.look_at_everything()
    await fetcher.claim(5, known=())
    assert gateway.ran.count("claim_full") == 1

    gateway.ran.clear()
    fetcher.look_at_everything()
    clock[0] += LOCKS_EXPECTED_FOR
    await fetcher.claim(5, known=())
    assert gateway.ran.count("claim_full") == 2


async def test_a_claim_that_only_parked_jobs_looks_again_itself(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers["claim_full"] = Claim([], parked=5)
    scanned = []

    def then_a_job() -> None:
        if gateway.ran[-1] == "claim_full":
            scanned.append(gateway.params["scanned"])
        if len(scanned) == 2:
            gateway.answers["claim_full"] = jobs(9)

    gateway.meanwhile = then_a_job
    claim = await fetcher.claim(10, known=())

    assert [job.id for job in claim.jobs] == [9]
    assert scanned == [0, SCANNED_IN_PASSING]


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(
    "left", [{"parked": 1}, {"undecided": 9}, {"parked": 4, "undecided": 6}], ids=str
)
async def test_what_was_found_before_jobs_that_had_to_be_left_starts_first(
    gateway: Scripted, fetcher: Fetcher, left: dict[str, int], marked: bool
) -> None:
    """And the next look, at what stands behind them, is due at once."""
    if marked:
        gateway.answers.update(claim_full=jobs(*range(10)))
        await fetcher.claim(10, known=())
    gateway.answers.update(dict.fromkeys(("claim_full", "claim_marked"), replace(jobs(11), **left)))
    gateway.ran.clear()
    claim = await fetcher.claim(10, known=())

    assert [job.id for job in claim.jobs] == [11]
    assert len([name for name in gateway.ran if name.startswith("claim")]) == 1
    assert fetcher.seconds_to_next_look == 0

    gateway.answers.update(claim_full=jobs(12), claim_marked=jobs(12))
    fetcher.look_at_everything()
    await fetcher.claim(10, known=())
    assert fetcher.seconds_to_next_look > 0


async def test_the_next_job_of_a_lock_does_not_move_a_mark_back(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    """A marked scan brings it from below the mark, or of a higher priority."""
    gateway.answers.update(claim_full=jobs(101, 102))
    await fetcher.claim(2, known=())
    urgent = replace(jobs(108).jobs[0], priority=1)
    gateway.answers.update(claim_marked=Claim([urgent, *jobs(7, 103, 104).jobs]))
    await fetcher.claim(4, known=())
    await fetcher.claim(4, known=())
    assert gateway.params["marks"] == {"q": Mark(0, 102)}


async def test_marks_are_left_out_while_a_full_scan_is_quicker(
    gateway: Scripted, fetcher: Fetcher, clock: list[float]
) -> None:
    """Above them are thousands of parked jobs; until a claim finds more than there is room for."""
    gateway.answers.update(claim_full=jobs(1, 2))
    seconds = {"claim_marked": 0.01, "claim_full": 0.003}

    def take_time() -> None:
        clock[0] += seconds.get(gateway.ran[-1], 0.0)

    async def claims() -> list[str]:
        gateway.ran.clear()
        await fetcher.claim(2, known=())
        return [name for name in gateway.ran if name.startswith("claim")]

    gateway.meanwhile = take_time
    assert await claims() == ["claim_full"]
    gateway.answers.update(claim_full=jobs(3))
    assert await claims() == ["claim_marked", "claim_full"]
    assert await claims() == ["claim_full"]
    gateway.answers.update(claim_full=jobs(4, 5))
    assert await claims() == ["claim_full"]
    gateway.answers.update(claim_full=jobs(6))
    assert await claims() == ["claim_marked", "claim_full"]
    seconds["claim_full"] = 0.02
    assert await claims() == ["claim_full"]
    assert await claims() == ["claim_marked", "claim_full"]
    seconds["claim_full"] = 0.003
    assert await claims() == ["claim_marked", "claim_full"]
    clock[0] += WITHOUT_MARKS
    assert await claims() == ["claim_full"]
    assert await claims() == ["claim_marked", "claim_full"]


async def test_a_claim_of_nothing_but_undecided_jobs_with_locks_scans_more_of_them_once(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    """As many as there is room for may be behind one that a user's transaction keeps locked."""
    scanned = []

    def note() -> None:
        if gateway.ran[-1] == "claim_full" and not gateway.params["unlocked_only"]:
            scanned.append(gateway.params["scanned"])

    gateway.meanwhile = note
    gateway.answers["claim_full"] = lambda unlocked: (
        Claim([], left=2) if unlocked else Claim([], undecided=2)
    )
    await fetcher.claim(2, known=())
    assert scanned == [0, SCANNED_IN_PASSING]
    assert fetcher.seconds_to_next_look > 0


async def test_jobs_that_others_decide_about_are_looked_at_again_soon(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers["claim_full"] = Claim([], undecided=1)
    await fetcher.claim(10, known=())

    assert fetcher.unsure
    assert fetcher.seconds_to_next_look < 0.1


async def test_jobs_that_stay_undecided_are_looked_at_less_and_less_often(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers["claim_full"] = Claim([], undecided=1)
    waits = []
    for _ in range(8):
        await fetcher.claim(10, known=())
        waits.append(fetcher.seconds_to_next_look)
    gateway.answers["claim_full"] = Claim(jobs(1).jobs, undecided=1)
    await fetcher.claim(10, known=())

    assert waits == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert fetcher.seconds_to_next_look == 0.02


@pytest.mark.parametrize("news", ["schedule_changed", "look_at_everything"])
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

    gateway.answers["promote_due"] = Promotion(1, 0.25)
    fetcher.schedule_changed()
    await fetcher.claim(1, known=())
    assert fetcher.seconds_to_next_look == 0.25


async def test_a_queue_heard_of_during_a_full_scan_gets_a_full_scan(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers.update(claim_full=jobs(1))
    gateway.meanwhile = lambda: fetcher.heard_of("other")
    await fetcher.claim(1, known=())
    gateway.meanwhile = lambda: None
    await fetcher.claim(1, known=())

    assert [name for name in gateway.ran if name.startswith("claim")] == ["claim_full"] * 2


async def test_after_a_lost_answer_unknown_jobs_are_handed_back(
    gateway: Scripted, fetcher: Fetcher
) -> None:
    gateway.answers.update(claim_full=ConnectionLost("cut"), held_jobs=jobs(1, 2).jobs)
    with pytest.raises(ConnectionLost):
        await fetcher.claim(1, known=())
    gateway.answers.update(claim_full=jobs(3))
    await fetcher.claim(1, known={1})

    assert gateway.ran[-5:] == [
        "held_jobs",
        "hand_back",
        "promote_due",
        "ready_queues",
        "claim_full",
    ]


async def test_unknown_jobs_that_end_instead_are_deleted_where_the_worker_keeps_none(
    gateway: Scripted,
) -> None:
    fetcher = Fetcher(gateway, 1, None, delete_ended=True)  # type: ignore[arg-type]
    gateway.answers.update(claim_full=ConnectionLost("cut"), held_jobs=jobs(1).jobs)
    with pytest.raises(ConnectionLost):
        await fetcher.claim(1, known=())
    await fetcher.settle(known=())

    assert gateway.ran[-1] == "hand_back"
    assert gateway.params["delete_ended"] is True
    assert gateway.options == {"transaction": True}


async def test_no_ready_queue_means_no_claim(gateway: Scripted, fetcher: Fetcher) -> None:
    gateway.answers["ready_queues"] = []
    claim = await fetcher.claim(5, known=())

    assert claim.jobs == []
    assert "claim_full" not in gateway.ran
