"""What a worker scans next: each rule of `procrastinate.model.claiming.scans` is a case."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from procrastinate.model.claiming.levels import BELOW_ALL, Level, level_of
from procrastinate.model.claiming.scan_memory import FullScans, Half, Look, Schedule, Vain
from procrastinate.model.claiming.scan_steps import Kind, Promote, Scan, Wait, left_none
from procrastinate.model.claiming.scans import (
    ABOVE_EVERY,
    EVERYWHERE_EVERY,
    LOCKS_EXPECTED_FOR,
    LOOK_AT_SCHEDULE_EVERY,
    NAMES_KEPT,
    PROMOTED_AT_ONCE,
    SCANNED_AT_MOST,
    SCANNED_IN_PASSING,
    WARY_FOR,
    WITHOUT_LEVEL,
    WORTH_A_TRY,
    ScanPlan,
)
from procrastinate.model.job import Job, Status


@dataclass(frozen=True)
class Found:
    jobs: Sequence[Job] = ()
    parked: int = 0
    left: int = 0
    undecided: int = 0
    none_ready: bool = False


def job(id: int, queue: str = "q", priority: int = 0) -> Job:
    return Job(id, Status.DOING, queue, "task", {}, priority=priority)


def jobs(*ids: int) -> list[Job]:
    return [job(id) for id in ids]


def name(value: Any) -> str:
    return value if isinstance(value, str) else ""


NOW = 1_000.0
TOOK = 0.001
LATER = Schedule(due=NOW + 20)
LEVEL = Level(0, ("q", "r"), floor=10, lows={"q": 12})
#: A busy worker in the middle of a claim; nothing but the scan of its level is due.
BUSY = ScanPlan(
    look=Look.ABOVE,
    level=LEVEL,
    above_due=NOW + 1,
    full=FullScans(at=NOW + 5, earliest=NOW + 4),
    everywhere_due=NOW + 1,
    schedule=LATER,
)
QUIET = replace(BUSY, quiet=True, heard={"b": 3, "a": 4}, news=4)
OF_ALL = Scan(Kind.FULL, 7, everywhere=True)
OF_LEVEL = Scan(Kind.LEVEL, 7, ("q", "r"), priority=0, lows=(12, 10))
OF_ABOVE = Scan(Kind.ABOVE, 7, ("q", "r"), priority=0)
HEARD = replace(OF_LEVEL, queues=("a", "b"), lows=(10, 10), news=4)
LAST = replace(BUSY, look=Look.NOTHING)
HALF = Half(replace(OF_LEVEL, news=3), tuple(jobs(21)), 0.5)


@pytest.mark.parametrize(
    ("rule", "plan", "step"),
    [
        ("1: the level, each queue from its mark", BUSY, OF_LEVEL),
        ("1: no level, all", replace(BUSY, level=None), OF_ALL),
        (
            "1: a queue that was heard of, from the level's beginning",
            replace(BUSY, level=replace(LEVEL, fresh={"r": 3}), heard={"r": 3}, news=3),
            replace(OF_LEVEL, lows=(12, BELOW_ALL), news=3),
        ),
        (
            "1: a queue that the level did not know",
            replace(BUSY, level=replace(LEVEL, fresh={"a": 3}), heard={"a": 3}, news=3),
            replace(OF_LEVEL, queues=("a", "q", "r"), lows=(BELOW_ALL, 12, 10), news=3),
        ),
        ("2: all are due", replace(BUSY, full=FullScans(at=NOW)), OF_ALL),
        ("2: all in a moment", replace(BUSY, full=FullScans(at=NOW + 0.001)), OF_LEVEL),
        ("2: news want it", replace(BUSY, full=FullScans(at=NOW + 5, wanted=1)), OF_ALL),
        ("3: above is due", replace(BUSY, above_due=NOW), OF_ABOVE),
        ("3: above in a moment", replace(BUSY, above_due=NOW + 0.001), OF_LEVEL),
        (
            "3: above, in the queues that were heard of alone",
            replace(QUIET, above_due=NOW),
            replace(OF_ABOVE, queues=("a", "b"), news=4),
        ),
        ("3: all before above", replace(BUSY, above_due=NOW, full=FullScans(at=NOW)), OF_ALL),
        ("4: the level led to nothing", replace(BUSY, look=Look.ALL), OF_ALL),
        ("5: it is owed", replace(BUSY, full=FullScans(at=NOW + 5, owed=NOW)), OF_ALL),
        ("6: the level where something was heard of", QUIET, HEARD),
        (
            "6: all where something was heard of",
            replace(QUIET, level=None),
            replace(OF_ALL, queues=("a", "b"), everywhere=False, news=4),
        ),
        (
            "6: everywhere now and then",
            replace(QUIET, level=None, everywhere_due=NOW),
            replace(OF_ALL, news=4),
        ),
        (
            "6: everywhere if nothing was heard of",
            replace(QUIET, level=None, heard={}),
            replace(OF_ALL, news=4),
        ),
        (
            "6: the level's queues if nothing was heard of",
            replace(QUIET, heard={}, news=0),
            OF_LEVEL,
        ),
        (
            "6: everywhere while others may have jobs",
            replace(QUIET, level=None, quiet=False),
            replace(OF_ALL, news=4),
        ),
        (
            "7: locks are expected",
            replace(BUSY, locks_until=NOW + 1),
            replace(OF_LEVEL, with_locks=True, wary=True),
        ),
        (
            "7: locks were expected",
            replace(BUSY, locks_until=NOW),
            replace(OF_LEVEL, wary=True),
        ),
        ("7: long ago", replace(BUSY, locks_until=NOW - WARY_FOR), OF_LEVEL),
        (
            "7: locks are expected of all",
            replace(BUSY, level=None, locks_until=NOW + 1),
            replace(OF_ALL, with_locks=True, wary=True),
        ),
        (
            "7: all without locks again",
            replace(BUSY, level=None, locks_until=NOW),
            replace(OF_ALL, wary=True),
        ),
        ("7: all, long ago", replace(BUSY, level=None, locks_until=NOW - WARY_FOR), OF_ALL),
        (
            "7: the same again with locks",
            replace(BUSY, half=HALF, news=9, full=FullScans(at=NOW)),
            replace(OF_LEVEL, with_locks=True, news=3),
        ),
        (
            "8: behind what was parked",
            replace(BUSY, look=Look.BEHIND, behind=SCANNED_IN_PASSING),
            replace(OF_ALL, scanned=SCANNED_IN_PASSING),
        ),
        (
            "9: the schedule first",
            replace(BUSY, look=Look.SCHEDULE, schedule=Schedule(NOW), news=5),
            Promote(5),
        ),
        ("9: the schedule is not due", replace(BUSY, look=Look.SCHEDULE), OF_LEVEL),
        ("9: the schedule once", replace(BUSY, schedule=Schedule(NOW)), OF_LEVEL),
        ("9: the schedule before a gap is looked at", ScanPlan().begun(), Promote(0)),
        ("the claim has ended", LAST, Wait(20.0)),
        ("nothing is due any more", replace(LAST, schedule=Schedule(NOW - 1)), Wait(0.0)),
        ("5: what is owed is waited for", replace(LAST, full=FullScans(owed=NOW + 2)), Wait(2.0)),
        ("8: more stands behind", replace(LAST, more_behind=True), Wait(0.0)),
        ("10: undecided once", replace(LAST, undecided=1), Wait(0.02)),
        ("10: undecided again", replace(LAST, undecided=3), Wait(0.08)),
        ("10: undecided for long", replace(LAST, undecided=7), Wait(1.0)),
        ("10: undecided for ages", replace(LAST, undecided=9_999), Wait(1.0)),
        (
            "10: undecided, and something is due earlier",
            replace(LAST, undecided=1, schedule=Schedule(NOW + 0.01)),
            Wait(pytest.approx(0.01)),
        ),
    ],
    ids=name,
)
def test_the_next_step(rule: str, plan: ScanPlan, step: Any) -> None:
    assert plan.next(NOW, 7) == step


def test_a_claim_without_room_ends() -> None:
    assert BUSY.next(NOW, 0) == Wait(20.0)


NEXT = FullScans(at=NOW + 0.05, earliest=NOW + 0.008)  # after a full scan of a millisecond
ALONE = FullScans(at=NOW + 0.008, earliest=NOW + 0.008)  # after one that left nothing behind
MADE = {"above_due": NOW + ABOVE_EVERY, "full": NEXT}
EVERYWHERE = {"everywhere_due": NOW - TOOK + EVERYWHERE_EVERY}
ENDED = {"look": Look.NOTHING, "brought": True}
DRAINED = {**MADE, **EVERYWHERE, "quiet": True, "full": ALONE}
BACKLOG = {**MADE, **EVERYWHERE, "quiet": False}
AT_21 = replace(LEVEL, lows={"q": 20})
UPPER = Level(1, ("q", "r"), floor=4, lows={"q": 4}, under=LEVEL)
ONLY_A = replace(OF_ALL, queues=("a",), everywhere=False)


@pytest.mark.parametrize(
    ("rule", "plan", "scan", "found", "changes"),
    [
        (
            "1: the mark follows the claims",
            BUSY,
            replace(OF_LEVEL, limit=2),
            Found(jobs(21, 22)),
            {**ENDED, "level": AT_21},
        ),
        (
            "1: the next job of a lock moves no mark",
            BUSY,
            replace(OF_LEVEL, limit=4),
            Found([job(30, priority=1), *jobs(7, 12, 21)]),
            {**ENDED, "level": AT_21},
        ),
        (
            "1: a queue is scanned from its beginning once for each time that it is heard of",
            replace(BUSY, level=replace(LEVEL, fresh={"a": 2, "b": 3}), news=3),
            replace(OF_LEVEL, limit=1, news=2),
            Found(jobs(21)),
            {**ENDED, "level": replace(AT_21, fresh={"b": 3})},
        ),
        (
            "1: the level is that of the last job",
            BUSY,
            replace(OF_ALL, limit=4, queues=("p", "q", "r")),
            Found([job(9, priority=1), job(5), job(6, "r"), job(7, "r")]),
            {**ENDED, **BACKLOG, "level": Level(0, ("p", "q", "r"), 4, {"q": 4, "r": 5})},
        ),
        (
            "1: what was heard of during a scan of all is scanned from its beginning",
            replace(BUSY, level=None, heard={"r": 1, "p": 2}, news=2),
            replace(OF_ALL, limit=1, queues=("q", "r"), news=1),
            Found(jobs(5)),
            {
                **ENDED,
                **BACKLOG,
                "level": Level(0, ("q", "r"), 4, {"q": 4}, {"p": 2}),
                "heard": {"p": 2},
            },
        ),
        (
            "3: none above, the level follows in the same claim",
            BUSY,
            OF_ABOVE,
            Found(),
            {"above_due": NOW + ABOVE_EVERY},
        ),
        (
            "3: some above, the level follows in the same claim",
            replace(BUSY, look=Look.SCHEDULE),
            OF_ABOVE,
            Found([job(5, priority=1)]),
            {"look": Look.ABOVE, "brought": True, "above_due": NOW + ABOVE_EVERY},
        ),
        (
            "3: enough above is the new level",
            BUSY,
            replace(OF_ABOVE, limit=1),
            Found([job(5, priority=1)]),
            {**ENDED, "above_due": NOW + ABOVE_EVERY, "level": UPPER},
        ),
        (
            "3: the old level goes on in the same claim",
            replace(BUSY, level=UPPER, look=Look.READY),
            replace(OF_LEVEL, priority=1),
            Found(),
            {"level": LEVEL, "look": Look.ABOVE, "above_due": 0.0},
        ),
        (
            "3: the old level goes on after what the new one had left",
            replace(BUSY, level=UPPER),
            replace(OF_LEVEL, priority=1),
            Found([job(7, priority=1)]),
            {"level": LEVEL, "above_due": 0.0, "brought": True},
        ),
        (
            "3, 8: above again, behind what was parked",
            BUSY,
            replace(OF_ABOVE, with_locks=True),
            Found(parked=1),
            {"above_due": NOW},
        ),
        (
            "4: the level had nothing",
            BUSY,
            OF_LEVEL,
            Found(),
            {"look": Look.ALL, "vain": Vain(TOOK, NOW + WITHOUT_LEVEL)},
        ),
        (
            "4: a level that costs more than it saves is left out",
            replace(BUSY, vain=Vain(0.01, NOW + 1)),
            OF_ALL,
            Found(jobs(5)),
            {**ENDED, **DRAINED, "level": None},
        ),
        (
            "4: for a while",
            replace(BUSY, vain=Vain(0.01, NOW)),
            OF_ALL,
            Found(jobs(5)),
            {**ENDED, **DRAINED, "level": Level(0, ("q",), 4, {"q": 4})},
        ),
        (
            "4: and if full scans take four times as long, since it may bring something",
            replace(BUSY, vain=Vain(TOOK / WORTH_A_TRY, NOW + 1)),
            OF_ALL,
            Found(jobs(5)),
            {**ENDED, **DRAINED, "level": Level(0, ("q",), 4, {"q": 4})},
        ),
        (
            "4: until there is a backlog",
            replace(BUSY, vain=Vain(0.01, NOW + 1)),
            replace(OF_ALL, limit=1),
            Found(jobs(5)),
            {**ENDED, **BACKLOG, "level": Level(0, ("q",), 4, {"q": 4}), "vain": Vain()},
        ),
        (
            "5: a short one owes a full one",
            BUSY,
            OF_LEVEL,
            Found(jobs(21)),
            {**ENDED, "level": AT_21, "full": replace(BUSY.full, owed=NOW + 4)},
        ),
        (
            "5: also one that follows jobs from above",
            replace(BUSY, brought=True),
            OF_LEVEL,
            Found(),
            {**ENDED, "full": replace(BUSY.full, owed=NOW + 4)},
        ),
        (
            "6: short, and nothing is left",
            BUSY,
            replace(OF_ALL, queues=("q", "r")),
            Found(jobs(5)),
            {**ENDED, **DRAINED, "level": Level(0, ("q",), 4, {"q": 4})},
        ),
        (
            "6: nothing at all",
            BUSY,
            OF_ALL,
            Found(),
            {**DRAINED, "look": Look.NOTHING, "level": None},
        ),
        (
            "6: what was heard meanwhile remains",
            replace(QUIET, heard={"a": 1, "b": 2}, news=2, full=FullScans(wanted=2)),
            replace(ONLY_A, news=1),
            Found(),
            {
                **MADE,
                "look": Look.NOTHING,
                "level": None,
                "heard": {"b": 2},
                "full": replace(ALONE, wanted=2),
            },
        ),
        (
            "6: where there may be more, it looks again",
            replace(QUIET, heard={"a": 1, "b": 0}, news=2),
            replace(ONLY_A, limit=1, news=1),
            Found([job(5, "a")]),
            {**ENDED, **MADE, "heard": {"a": 1}, "level": Level(0, ("a",), 4, {"a": 4})},
        ),
        (
            "6: a gap meanwhile",
            replace(BUSY, gap=2, news=2, full=FullScans(wanted=2)),
            replace(OF_ALL, news=1),
            Found(),
            {**BACKLOG, "look": Look.NOTHING, "level": None, "full": replace(ALONE, wanted=2)},
        ),
        (
            "6: a gap before",
            replace(BUSY, gap=1, news=1, full=FullScans(wanted=1)),
            replace(OF_ALL, news=1),
            Found(),
            {**DRAINED, "look": Look.NOTHING, "level": None},
        ),
        (
            "7: locks were met",
            BUSY,
            OF_LEVEL,
            Found(jobs(21), left=2),
            {
                "half": Half(OF_LEVEL, tuple(jobs(21)), TOOK),
                "look": Look.READY,
                "locks_until": NOW + LOCKS_EXPECTED_FOR,
            },
        ),
        (
            "7: both halves together",
            replace(BUSY, half=replace(HALF, scan=OF_LEVEL)),
            replace(OF_LEVEL, with_locks=True, limit=1),
            Found(jobs(20)),
            {**ENDED, "half": None, "level": replace(LEVEL, lows={"q": 19})},
        ),
        (
            "7: the time of both halves counts",
            replace(BUSY, half=replace(HALF, jobs=())),
            replace(OF_LEVEL, with_locks=True),
            Found(),
            {"half": None, "look": Look.ALL, "vain": Vain(0.501, NOW + WITHOUT_LEVEL)},
        ),
        (
            "8: nothing but parked jobs",
            BUSY,
            replace(OF_ALL, with_locks=True),
            Found(parked=7),
            {**BACKLOG, "look": Look.BEHIND, "level": None, "behind": SCANNED_IN_PASSING},
        ),
        (
            "8: parked jobs, and the claim has some from above",
            replace(BUSY, brought=True),
            replace(OF_ALL, with_locks=True),
            Found(parked=7),
            {**ENDED, **BACKLOG, "level": None, "more_behind": True},
        ),
        (
            "8: nothing but undecided jobs, while locks are expected",
            replace(BUSY, locks_until=NOW + 1),
            replace(OF_ALL, with_locks=True),
            Found(undecided=7),
            {**BACKLOG, "look": Look.BEHIND, "level": None, "behind": SCANNED_IN_PASSING},
        ),
        (
            "8: while locks are expected no more",
            replace(BUSY, locks_until=NOW),
            replace(OF_ALL, with_locks=True),
            Found(undecided=7),
            {**BACKLOG, "look": Look.NOTHING, "level": None, "undecided": 1},
        ),
        (
            "8: twice as many if all of these are undecided",
            replace(BUSY, locks_until=NOW + 1, behind=SCANNED_IN_PASSING),
            replace(OF_ALL, with_locks=True, scanned=SCANNED_IN_PASSING),
            Found(undecided=SCANNED_IN_PASSING),
            {**BACKLOG, "look": Look.BEHIND, "level": None, "behind": 2 * SCANNED_IN_PASSING},
        ),
        (
            "8: as many again if some of these were parked",
            replace(BUSY, locks_until=NOW + 1, behind=1_000),
            replace(OF_ALL, with_locks=True, scanned=1_000),
            Found(parked=1, undecided=999),
            {**BACKLOG, "look": Look.BEHIND, "level": None, "behind": 1_000},
        ),
        (
            "8: up to a limit",
            replace(BUSY, locks_until=NOW + 1, behind=SCANNED_AT_MOST),
            replace(OF_ALL, with_locks=True, scanned=SCANNED_AT_MOST),
            Found(undecided=SCANNED_AT_MOST),
            {**BACKLOG, "look": Look.NOTHING, "level": None, "undecided": 1},
        ),
        (
            "8: not if fewer of these are undecided",
            replace(BUSY, locks_until=NOW + 1),
            replace(OF_ALL, with_locks=True, scanned=SCANNED_IN_PASSING),
            Found(undecided=7),
            {**BACKLOG, "look": Look.NOTHING, "level": None, "undecided": 1},
        ),
        (
            "8: fewer of them than there is room for",
            replace(BUSY, locks_until=NOW + 1),
            replace(OF_ALL, with_locks=True),
            Found(undecided=6),
            {**BACKLOG, "look": Look.NOTHING, "level": None, "undecided": 1},
        ),
        (
            "8: what was found before parked ones starts first",
            BUSY,
            replace(OF_ALL, with_locks=True),
            Found(jobs(5), parked=3),
            {**ENDED, **BACKLOG, "level": Level(0, ("q",), 4, {"q": 4}), "more_behind": True},
        ),
        (
            "8: what was found before undecided ones starts first",
            BUSY,
            OF_LEVEL,
            Found(jobs(21), undecided=6),
            {
                **ENDED,
                "level": AT_21,
                "full": replace(BUSY.full, owed=NOW + 4),
                "more_behind": True,
                "undecided": 1,
            },
        ),
        (
            "8: fewer undecided ones hide nothing",
            replace(BUSY, more_behind=True),
            OF_LEVEL,
            Found(jobs(21), undecided=5),
            {
                **ENDED,
                "level": AT_21,
                "full": replace(BUSY.full, owed=NOW + 4),
                "more_behind": False,
                "undecided": 1,
            },
        ),
        (
            "8: without room nothing is hidden",
            BUSY,
            replace(OF_LEVEL, limit=1, with_locks=True),
            Found(jobs(21), parked=1),
            {**ENDED, "level": AT_21},
        ),
        (
            "10: undecided jobs",
            replace(BUSY, undecided=1),
            OF_ALL,
            Found(undecided=1),
            {**BACKLOG, "look": Look.NOTHING, "level": None, "undecided": 2},
        ),
        (
            "10: undecided jobs beside others",
            replace(BUSY, undecided=5),
            OF_ALL,
            Found(jobs(5), undecided=1),
            {**ENDED, **BACKLOG, "level": Level(0, ("q",), 4, {"q": 4}), "undecided": 1},
        ),
        (
            "10: no undecided jobs any more",
            replace(BUSY, undecided=5),
            OF_ALL,
            Found(),
            {**DRAINED, "look": Look.NOTHING, "level": None, "undecided": 0},
        ),
    ],
    ids=name,
)
def test_what_a_scan_teaches(
    rule: str, plan: ScanPlan, scan: Scan, found: Found, changes: dict[str, Any]
) -> None:
    assert plan.saw(scan, found, TOOK, NOW) == replace(plan, **changes)


@pytest.mark.parametrize(
    ("took", "after"),
    [(0.0, 0.05), (0.005, 0.05), (0.01, 0.08), (0.5, 4.0), (1.0, 8.0), (1.5, 7.5), (20.0, 20.0)],
)
def test_full_scans_take_a_tenth_of_the_time_and_are_made_at_least_so_often(
    took: float, after: float
) -> None:
    """Within 0.1 s while one takes 10 ms, within ten times what it takes, and within 10 s."""
    made = FullScans(owed=NOW).made(took, NOW, 0, short=False)
    assert made.at == pytest.approx(NOW + after)
    assert made.earliest == pytest.approx(NOW + (after if took >= 0.01 else 8 * took))
    assert made.owed == math.inf


def test_without_a_backlog_a_full_scan_takes_the_place_of_a_scan_of_the_level() -> None:
    """Else a job that comes alone takes both, one after the other."""
    drained = BUSY.saw(OF_ALL, Found(jobs(21)), TOOK, NOW).heard_of("q").begun()
    backlog = BUSY.saw(replace(OF_ALL, limit=1), Found(jobs(21)), TOOK, NOW).heard_of("q").begun()
    kinds = [
        getattr(plan.next(NOW + after, 7), "kind", None)
        for plan in (drained, backlog)
        for after in (0.007, 0.009)
    ]
    assert kinds == [Kind.LEVEL, Kind.FULL, Kind.LEVEL, Kind.LEVEL]


def test_looking_above_takes_at_most_half_of_the_time() -> None:
    assert BUSY.saw(OF_ABOVE, Found(), 0.2, NOW).above_due == NOW + 0.2


@pytest.mark.parametrize(
    ("case", "count", "to_next", "changed", "due", "owed"),
    [
        ("none is scheduled", 0, None, 0, NOW + LOOK_AT_SCHEDULE_EVERY, math.inf),
        ("one is due soon", 0, 0.25, 0, NOW + 0.25, math.inf),
        ("one was promoted", 1, 99.0, 0, NOW + LOOK_AT_SCHEDULE_EVERY, NOW + 4),
        ("news came meanwhile", 0, None, 1, 0.0, math.inf),
        ("the batch was full", PROMOTED_AT_ONCE, 0.0, 0, 0.0, NOW + 4),
    ],
    ids=name,
)
def test_the_schedule_is_looked_at_once_for_each_claim_and_again_when_it_is_due(
    case: str, count: int, to_next: float | None, changed: int, due: float, owed: float
) -> None:
    plan = replace(BUSY, look=Look.SCHEDULE, schedule=Schedule(0.0, changed, failures=3))
    assert plan.promoted(Promote(0), count, to_next, NOW) == replace(
        BUSY, schedule=Schedule(due, changed), full=replace(BUSY.full, owed=owed)
    )


def test_a_promotion_that_fails_stops_no_claim_and_is_tried_again_later_and_later() -> None:
    plan = replace(BUSY, look=Look.SCHEDULE, schedule=Schedule(0.0))
    waits = []
    for _ in range(7):
        plan = plan.promotion_failed(NOW)
        assert plan.next(NOW, 7) == OF_LEVEL
        waits.append(plan.schedule.due - NOW)
    assert waits == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    "news", [ScanPlan.schedule_changed, ScanPlan.gap_in_what_was_heard], ids=lambda f: f.__name__
)
def test_news_do_not_hurry_a_promotion_that_fails(news: Callable[[ScanPlan], ScanPlan]) -> None:
    """Each look at it would be another error, and a schedule may be announced at any rate."""
    failing = Schedule(NOW + 4, failures=3)
    assert news(replace(BUSY, schedule=failing, news=1)).schedule == replace(failing, changed=2)


def test_a_queue_that_is_heard_of_is_noted_with_the_number_of_the_news() -> None:
    plan = replace(BUSY, level=UPPER, news=5).heard_of("r").heard_of("q")
    level = replace(LEVEL, fresh={"r": 6})  # of which no job was claimed
    assert plan == replace(
        BUSY,
        level=replace(UPPER, fresh={"r": 6}, under=level),
        heard={"r": 6, "q": 7},
        news=7,
    )


def test_no_more_names_are_kept_than_a_scan_can_look_into() -> None:
    """Anybody may announce any number of names."""
    plan = BUSY
    for n in range(NAMES_KEPT):
        plan = plan.heard_of(str(n))
    assert len(plan.heard) == NAMES_KEPT
    assert plan.heard_of("0").next(NOW, 1).kind is Kind.LEVEL  # type: ignore[union-attr]
    plan = plan.heard_of("one more")
    assert (plan.heard, plan.level, plan.schedule) == ({}, None, LATER)
    assert plan.next(NOW, 7) == replace(OF_ALL, news=NAMES_KEPT + 1)


def test_after_a_gap_all_is_looked_at() -> None:
    plan = QUIET.gap_in_what_was_heard().begun()
    assert plan.next(NOW, 7) == Promote(5)
    assert replace(plan, look=Look.ABOVE).next(NOW, 7) == replace(OF_ALL, news=5)
    plan = plan.promoted(Promote(5), 0, None, NOW).saw(replace(OF_ALL, news=5), Found(), TOOK, NOW)
    assert (plan.quiet, plan.full.wanted, plan.schedule.due) == (True, 0, NOW + 30)


def test_a_job_that_is_scheduled_soon_makes_the_schedule_due() -> None:
    plan = QUIET.schedule_changed()
    assert plan == replace(QUIET, news=5, schedule=Schedule(0.0, 5))


def test_a_claim_begins_anew() -> None:
    plan = replace(LAST, brought=True, half=HALF).begun()
    assert plan == replace(LAST, look=Look.SCHEDULE)


@pytest.mark.parametrize(
    ("lows", "fresh", "low"), [({"q": 3}, {"q": 1}, 3), ({}, {"q": 1}, BELOW_ALL), ({}, {}, 2)]
)
def test_the_mark_of_a_queue(lows: Mapping[str, int], fresh: Mapping[str, int], low: int) -> None:
    assert Level(0, ("q",), 2, lows, fresh).low("q") == low


def test_a_mark_below_the_least_id_is_the_least_id() -> None:
    assert level_of(jobs(BELOW_ALL), ()).lows == {"q": BELOW_ALL}


def test_a_level_knows_the_queues_of_its_jobs_in_order() -> None:
    found = [job(3, "z", 1), job(4, "a", 0)]
    assert level_of(found, ["m", "a"]) == Level(0, ("a", "m", "z"), 3, {"a": 3})


@pytest.mark.parametrize(
    ("plan", "lows"),
    [
        (BUSY, {"q": 6, "r": BELOW_ALL}),
        (replace(BUSY, level=replace(LEVEL, lows={"q": 12, "r": 3})), {"q": 6, "r": 3}),
        (replace(BUSY, level=replace(LEVEL, priority=1, under=LEVEL)), {"q": 12, "r": BELOW_ALL}),
    ],
    ids=["below the mark", "a mark that is lower already", "of a level under this one"],
)
def test_rule_11_jobs_that_went_back_lower_the_marks_of_their_level(
    plan: ScanPlan, lows: Mapping[str, int]
) -> None:
    plan = plan.went_back([job(7), job(9), job(11, "r", priority=-1), job(8)])
    assert plan.level is not None
    assert {queue: plan.level.low(queue) for queue in ("q", "r")} == lows
    assert plan.above_due == 0.0
    assert set(plan.heard) == {"q", "r"}
    if plan.level.under is not None:
        assert plan.level.under.low("q") == 6


def test_rule_11_a_worker_without_a_level_looks_at_all_anyway() -> None:
    plan = replace(BUSY, level=None).went_back([job(7)])
    assert plan.begun().next(NOW, 7) == replace(OF_ALL, news=1)


def test_rule_11_jobs_that_went_back_above_the_level_are_looked_for_at_once() -> None:
    plan = replace(BUSY, level=replace(LEVEL, priority=-5)).went_back([job(7)])
    step = plan.begun().next(NOW, 7)
    assert isinstance(step, Scan)
    assert (step.kind, step.priority) == (Kind.ABOVE, -5)


# --- What a scan shows ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "found", "expected"),
    [
        (Kind.FULL, Found(jobs(1, 2)), True),
        (Kind.FULL, Found(), True),
        (Kind.FULL, Found(jobs(1, 2, 3)), False),
        (Kind.FULL, Found(jobs(1), parked=1), False),
        (Kind.FULL, Found(jobs(1), undecided=1), False),
        *((kind, Found(jobs(1)), False) for kind in Kind if kind is not Kind.FULL),
        *((kind, Found(), False) for kind in Kind if kind is not Kind.FULL),
    ],
)
def test_only_a_full_scan_that_came_short_shows_that_it_left_no_job(
    kind: Kind, found: Found, expected: bool
) -> None:
    assert left_none(Scan(kind, 3), found) is expected


# --- One of several partitions --------------------------------------------------------------------

OF_PARTITION = ScanPlan.of_partition()


def test_rule_12_a_partition_that_was_heard_of_is_scanned_there() -> None:
    plan = OF_PARTITION.heard_of("q").begun()
    assert plan.next(NOW, 7) == Scan(Kind.FULL, 7, ("q",), news=1)
    plan = plan.saw(Scan(Kind.FULL, 7, ("q",), news=1), Found(jobs(1)), TOOK, NOW)
    # Much later, and after another job: no look everywhere, and none at the schedule.
    later = NOW + 10 * EVERYWHERE_EVERY
    step = plan.heard_of("r").begun().next(later, 7)
    assert isinstance(step, Scan)
    assert step.everywhere is False


@pytest.mark.parametrize("plan", [OF_PARTITION, OF_PARTITION.heard_of("q")])
def test_rule_12_after_a_gap_a_partition_is_looked_at_everywhere_and_nothing_is_promoted(
    plan: ScanPlan,
) -> None:
    gap = plan.gap_in_what_was_heard().begun()
    step = gap.next(NOW, 7)
    assert isinstance(step, Scan)
    assert (step.kind, step.everywhere) == (Kind.FULL, True)
    assert gap.schedule.due == math.inf
    seen = gap.saw(step, Found(), TOOK, NOW)
    assert (seen.seconds_to_next_look(NOW), seen.everywhere_due) == (math.inf, math.inf)


def test_rule_12_what_a_sweep_found_in_one_queue_is_looked_for_in_all_of_that_one() -> None:
    """Also what stands below the mark, as a late commit does. A gap from before still counts."""
    plan = OF_PARTITION.heard_of("q").begun()
    plan = plan.saw(Scan(Kind.FULL, 2, ("q",), news=1), Found(jobs(1, 2)), TOOK, NOW)
    assert plan.level is not None
    found = plan.found_in("q").begun()
    assert found.next(NOW, 7) == Scan(Kind.FULL, 7, ("q",), news=2)
    step = OF_PARTITION.gap_in_what_was_heard().found_in("q").begun().next(NOW, 7)
    assert isinstance(step, Scan)
    assert step.everywhere is True


@pytest.mark.parametrize(("is_swept", "waits"), [(True, math.inf), (False, 4)])
def test_rule_12_a_short_scan_of_the_level_owes_no_full_one(is_swept: bool, waits: float) -> None:
    plan = replace(BUSY, is_swept=is_swept, schedule=Schedule(due=math.inf), brought=True)
    seen = plan.saw(OF_LEVEL, Found(jobs(21)), TOOK, NOW)
    assert seen.seconds_to_next_look(NOW) == waits


def test_rule_12_no_full_scan_follows_where_none_is_ready() -> None:
    plan = OF_PARTITION.heard_of("q").begun()
    plan = plan.saw(Scan(Kind.FULL, 2, ("q",), news=1), Found(jobs(1, 2)), TOOK, NOW).begun()
    step = plan.next(NOW, 7)
    assert isinstance(step, Scan)
    assert (step.kind, step.queues) == (Kind.LEVEL, ("q",))
    full = Scan(Kind.FULL, 7, ("q",), news=1)
    assert plan.saw(step, Found(), TOOK, NOW).next(NOW, 7) == full
    ended = plan.saw(step, Found(none_ready=True), TOOK, NOW)
    assert ended.next(NOW, 7) == Wait(math.inf)
    assert ended == plan.saw(full, Found(), TOOK, NOW)
    # What is heard meanwhile is of queues that were not looked at.
    assert plan.heard_of("r").saw(step, Found(none_ready=True), TOOK, NOW).next(NOW, 7) == replace(
        full, queues=("q", "r"), news=2
    )
