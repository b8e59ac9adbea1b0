"""Searches: which walks they take, how partitions are merged, and where a cursor leads."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from procrastinate.errors import InvalidOption
from procrastinate.model.job import Job, Status
from procrastinate.model.monitoring.search import (
    Count,
    Slice,
    Stop,
    Walk,
    cursor,
    located,
    merged,
    stops,
    walks,
)
from procrastinate.model.partitions import ONE, Partitions
from procrastinate.model.states import State, holds_of, state_of, statuses_of

MANY = Partitions(64)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(job_id: int) -> Job:
    return Job(job_id, Status.FAILED, "q", "t", {})


def test_every_status_and_hold_is_a_state() -> None:
    assert {state: state_of(state.status, state.hold) for state in State} == {
        state: state for state in State
    }
    assert state_of(Status.FAILED, "lock") is State.FAILED
    assert statuses_of([State.FAILED, State.READY]) == [Status.TODO, Status.FAILED]
    assert holds_of([State.FAILED]) is None
    assert holds_of([State.READY, State.SCHEDULED, State.BEHIND_A_LOCK]) is None
    assert holds_of([State.READY, State.SCHEDULED, State.FAILED]) == ["", "schedule"]


def taken(*states: State) -> list[str]:
    found = walks(by_id=False, statuses=statuses_of(states), holds=holds_of(states))
    return [walk.value for walk, _ in found]


def test_what_has_not_ended_comes_first() -> None:
    every = list(State)
    assert taken(*every) == ["running", "ready", "scheduled", "behind-locks", "newest"]
    assert taken(State.FAILED, State.ABORTED, State.READY) == ["ready", "ended"]
    assert taken(State.SUCCEEDED, State.FAILED) == ["newest"]
    assert taken() == []
    assert walks(by_id=False, statuses=None, holds=None) == [(Walk.NEWEST, None)]
    assert walks(by_id=True, statuses=None, holds=None) == [(Walk.IDS, None)]


def test_all_slices_together_give_each_job_once_and_in_order() -> None:
    """However jobs lie in partitions, and however little is read of each at a time."""
    chance = random.Random(7)
    for _ in range(50):
        ids = chance.sample(range(1, 200), chance.randint(0, 40))
        places = {job_id: chance.randrange(5) for job_id in ids}
        found: list[int] = []
        before = 200
        still_open = list(range(5))
        while True:
            limit, scanned = chance.randint(1, 6), chance.randint(1, 4)
            slices = []
            for partition in still_open:
                here = sorted(
                    (each for each in ids if places[each] == partition and each < before),
                    reverse=True,
                )
                read = here[:scanned]
                slices.append(
                    Slice(
                        [job(each) for each in read],
                        len(read),
                        len(read) == len(here),
                        (read[-1],) if read else None,
                    )
                )
            here_round = merged(Walk.NEWEST, slices, limit)
            assert len(here_round.jobs) <= limit
            found += [each.id for each in here_round.jobs]
            if here_round.goes_on is None:
                break
            before = here_round.goes_on[0]
            still_open = [still_open[each] for each in here_round.still_open]
        assert found == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    ("walk", "key"),
    [
        (Walk.NEWEST, (7,)),
        (Walk.NEWEST, None),
        (Walk.SCHEDULED, (NOON, 7)),
        (Walk.READY, ("Ä*", -3, 7)),
        (Walk.BEHIND_LOCKS, ("", "q", 0, 2**63 - 1)),
    ],
)
def test_a_cursor_leads_back_to_its_place(walk: Walk, key: Any) -> None:
    among = stops([(Walk.RUNNING, None), (walk, None)], MANY)
    place = len(among) - 1
    assert located(cursor(among[place], key), among) == (place, key)


def test_walks_by_names_take_one_partition_at_a_time() -> None:
    assert len(stops([(Walk.READY, None), (Walk.NEWEST, None)], MANY)) == 65
    assert len(stops([(Walk.READY, None), (Walk.NEWEST, None)], ONE)) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "ä",
        "e30",
        cursor(Stop(Walk.READY, [0], None), ("q", 0, 7)),
        cursor(Stop(Walk.NEWEST, [0], None), (-2,)),
        cursor(Stop(Walk.NEWEST, [0], None), (2**63,)),
        cursor(Stop(Walk.NEWEST, [0], None), ("7",)),
        cursor(Stop(Walk.NEWEST, [0], None), (7, 8)),
        cursor(Stop(Walk.SCHEDULED, [0], None), (datetime(2026, 1, 1), 7)),
        cursor(Stop(Walk.SCHEDULED, [0], None), (datetime.max.replace(tzinfo=UTC), 7)),
    ],
)
def test_a_forged_cursor_is_refused(text: str) -> None:
    among = stops([(Walk.SCHEDULED, None), (Walk.NEWEST, None)], ONE)
    with pytest.raises(InvalidOption, match="cursor must be that of a page"):
        located(text, among)


def test_counts_add_up_and_say_if_there_may_be_more() -> None:
    assert str(Count(1234)) == "1,234"
    assert str(Count(10_000, False)) == "10,000+"
    assert Count(1) + Count(2, False) == Count(3, False)
