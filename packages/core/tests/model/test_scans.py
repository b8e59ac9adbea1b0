"""What a worker scans next: each rule of `procrastinate.model.scans` is a case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from procrastinate.model.job import Job, Status
from procrastinate.model.scans import (
    EVERYWHERE_EVERY,
    LOCKS_EXPECTED_FOR,
    LOOK_AT_SCHEDULE_EVERY,
    PROMOTED_AT_ONCE,
    SCANNED_IN_PASSING,
    WITHOUT_MARKS,
    FullScans,
    Look,
    Mark,
    Promote,
    Scan,
    ScanPlan,
    Schedule,
    Vain,
    Wait,
)


@dataclass(frozen=True)
class Found:
    jobs: Sequence[Job] = ()
    parked: int = 0
    left: int = 0
    undecided: int = 0


def job(id: int, queue: str = "q", priority: int = 0) -> Job:
    return Job(id, Status.DOING, queue, "task", {}, priority=priority)


def jobs(*ids: int) -> list[Job]:
    return [job(id) for id in ids]


NOW = 1_000.0
LATER = Schedule(due=NOW + 20)
MARKS = {"q": Mark(0, 10)}
#: A busy queue in the middle of a claim; nothing but its marked scan is due.
BUSY = ScanPlan(
    look=Look.READY,
    marks=MARKS,
    full=FullScans(at=NOW + 5, earliest=NOW + 4),
    everywhere_due=NOW + 1,
    schedule=LATER,
)
QUIET = replace(BUSY, marks={}, only_in={"b": 3, "a": 4}, news=4)
FULL = Scan(7, everywhere=True)
MARKED = Scan(7, marks=MARKS)


@pytest.mark.parametrize(
    ("rule", "plan", "step"),
    [
        ("a busy queue is scanned from its mark", BUSY, MARKED),
        ("no mark, a full scan", replace(BUSY, marks={}), FULL),
        ("a full scan is due", replace(BUSY, full=FullScans(at=NOW)), FULL),
        ("it is due in a moment", replace(BUSY, full=FullScans(at=NOW + 0.001)), MARKED),
        ("it is owed", replace(BUSY, full=FullScans(at=NOW + 5, owed=NOW)), FULL),
        ("news want it", replace(BUSY, full=FullScans(at=NOW + 5, wanted=1)), FULL),
        ("marks led to nothing", replace(BUSY, look=Look.FULL), FULL),
        (
            "behind what was parked",
            replace(BUSY, look=Look.BEHIND),
            replace(FULL, scanned=SCANNED_IN_PASSING),
        ),
        (
            "only where something was heard of",
            QUIET,
            Scan(7, queues=("a", "b"), news=4),
        ),
        ("everywhere now and then", replace(QUIET, everywhere_due=NOW), replace(FULL, news=4)),
        ("everywhere if nothing was heard", replace(QUIET, only_in={}), replace(FULL, news=4)),
        (
            "locks are expected",
            replace(BUSY, locks_until=NOW + 1),
            replace(MARKED, with_locks=True),
        ),
        ("locks were expected", replace(BUSY, locks_until=NOW), MARKED),
        (
            "the schedule first",
            replace(BUSY, look=Look.SCHEDULE, schedule=Schedule(NOW), news=5),
            Promote(5),
        ),
        ("the schedule is not due", replace(BUSY, look=Look.SCHEDULE), MARKED),
        ("the schedule once", replace(BUSY, schedule=Schedule(NOW)), MARKED),
        ("the claim has ended", replace(BUSY, look=Look.NOTHING), Wait(20.0)),
        ("more stands behind", replace(BUSY, look=Look.NOTHING, more_behind=True), Wait(0.0)),
        (
            "a full scan is owed",
            replace(BUSY, look=Look.NOTHING, full=FullScans(owed=NOW + 2)),
            Wait(2.0),
        ),
        ("undecided once", replace(BUSY, look=Look.NOTHING, undecided=1), Wait(0.02)),
        ("undecided again", replace(BUSY, look=Look.NOTHING, undecided=3), Wait(0.08)),
        ("undecided for long", replace(BUSY, look=Look.NOTHING, undecided=30), Wait(1.0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_next_step(rule: str, plan: ScanPlan, step: Any) -> None:
    assert plan.next(NOW, 7) == step


def test_a_claim_without_room_ends() -> None:
    assert BUSY.next(NOW, 0) == Wait(20.0)


NEXT = FullScans(at=NOW + 0.05, earliest=NOW + 0.01)  # after a full scan of a millisecond
ENDED = {"look": Look.NOTHING}
DRAINED = {"everywhere_due": NOW - 0.001 + EVERYWHERE_EVERY, "only_in": {}, "full": NEXT}
BACKLOG = DRAINED | {"only_in": None}


@pytest.mark.parametrize(
    ("rule", "plan", "scan", "found", "changes"),
    [
        (
            "marks follow a marked scan",
            BUSY,
            replace(MARKED, limit=2),
            Found(jobs(21, 22)),
            {**ENDED, "marks": {"q": Mark(0, 20)}},
        ),
        (
            "the next job of a lock moves no mark",
            BUSY,
            replace(MARKED, limit=3),
            Found([job(30, priority=1), *jobs(7, 21)]),
            {**ENDED, "marks": {"q": Mark(0, 20)}},
        ),
        (
            "a short one owes a full one",
            BUSY,
            MARKED,
            Found(jobs(21)),
            {**ENDED, "marks": {"q": Mark(0, 20)}, "full": replace(BUSY.full, owed=NOW + 4)},
        ),
        (
            "one in vain is followed by a full one",
            BUSY,
            MARKED,
            Found(),
            {"look": Look.FULL, "vain": Vain(0.001, NOW + WITHOUT_MARKS)},
        ),
        (
            "a full scan sets the marks",
            BUSY,
            replace(FULL, limit=3),
            Found([job(9, priority=1), job(5), job(6, "b")]),
            {**ENDED, **BACKLOG, "marks": {"q": Mark(1, 8), "b": Mark(0, 5)}},
        ),
        (
            "a full scan that comes back short leaves nothing",
            BUSY,
            FULL,
            Found(jobs(5)),
            {**ENDED, **DRAINED, "marks": {"q": Mark(0, 4)}},
        ),
        (
            "what was heard meanwhile remains",
            replace(BUSY, only_in={"a": 1, "b": 2}, news=2, full=FullScans(wanted=2)),
            replace(FULL, news=1),
            Found(jobs(5)),
            {
                **ENDED,
                **DRAINED,
                "marks": {"q": Mark(0, 4)},
                "only_in": {"b": 2},
                "full": replace(NEXT, wanted=2),
            },
        ),
        (
            "marks that cost more than they save",
            replace(BUSY, vain=Vain(0.01, NOW + 1)),
            FULL,
            Found(jobs(5)),
            {**ENDED, **DRAINED, "marks": {}},
        ),
        (
            "they are tried again at the next backlog",
            replace(BUSY, vain=Vain(0.01, NOW + 1)),
            replace(FULL, limit=1),
            Found(jobs(5)),
            {**ENDED, **BACKLOG, "marks": {"q": Mark(0, 4)}, "vain": Vain()},
        ),
        (
            "nothing but parked jobs",
            BUSY,
            replace(FULL, with_locks=True),
            Found(parked=7),
            {**BACKLOG, "look": Look.BEHIND, "marks": {}},
        ),
        (
            "jobs before parked ones start first",
            BUSY,
            replace(FULL, with_locks=True),
            Found(jobs(5), parked=3),
            {**ENDED, **BACKLOG, "marks": {"q": Mark(0, 4)}, "more_behind": True},
        ),
        (
            "undecided jobs",
            replace(BUSY, undecided=1),
            FULL,
            Found(undecided=1),
            {**ENDED, **BACKLOG, "marks": {}, "undecided": 2},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_scan_teaches(
    rule: str, plan: ScanPlan, scan: Scan, found: Found, changes: dict[str, Any]
) -> None:
    assert plan.saw(scan, found, 0.001, NOW) == replace(plan, **changes)


def test_a_scan_that_met_locks_is_made_again_with_them() -> None:
    plan = BUSY.saw(MARKED, Found(jobs(23), left=2), 0.001, NOW)
    assert plan.locks_until == NOW + LOCKS_EXPECTED_FOR
    again = plan.next(NOW, 6)
    assert again == replace(MARKED, limit=6, with_locks=True)
    assert isinstance(again, Scan)
    assert plan.saw(again, Found(jobs(21)), 0.002, NOW).marks == {"q": Mark(0, 20)}


@pytest.mark.parametrize(
    ("count", "to_next", "news", "look", "due"),
    [
        (0, None, 0, Look.READY, NOW + LOOK_AT_SCHEDULE_EVERY),
        (1, 0.25, 0, Look.READY, NOW + 0.25),
        (1, 99.0, 0, Look.READY, NOW + LOOK_AT_SCHEDULE_EVERY),
        (0, None, 1, Look.READY, 0.0),
        (PROMOTED_AT_ONCE, 0.0, 0, Look.SCHEDULE, 0.0),
    ],
)
def test_when_the_schedule_is_looked_at_again(
    count: int, to_next: float | None, news: int, look: Look, due: float
) -> None:
    plan = replace(BUSY, look=Look.SCHEDULE, schedule=Schedule(0.0, news))
    after = plan.promoted(Promote(0), count, to_next, NOW)
    assert (after.look, after.schedule.due) == (look, due)
    assert after.full.due(NOW) is (count > 0)


def test_news_make_a_full_scan_due_unless_there_is_a_mark() -> None:
    assert not BUSY.heard_of("q").full.due(NOW)
    assert BUSY.heard_of("other").full.due(NOW)


def test_after_a_gap_all_is_looked_at() -> None:
    plan = QUIET.gap_in_what_was_heard().begun()
    assert plan.next(NOW, 1) == Promote(5)
    assert replace(plan, look=Look.READY).next(NOW, 1) == Scan(1, everywhere=True, news=5)
    assert plan.full.owed == math.inf
