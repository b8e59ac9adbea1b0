"""The invariants of the machine notice what breaks them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from queue_invariants import check_claim, check_state, check_step, claimable
from queue_sides import State

from procrastinate.model.job import Job, Status
from procrastinate.testing.values import JobRow

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TODO = JobRow(1, "a", "task", "{}", NOW)
DOING = replace(TODO, status=Status.DOING, worker_id=7, started_at=NOW, attempts=1)
ENDED = replace(DOING, status=Status.SUCCEEDED, finished_at=NOW)


def state(*jobs: JobRow, **locks: int) -> State:
    return State(NOW, {job.id: job for job in jobs}, locks, {})


def test_a_queue_in_order_breaks_none() -> None:
    holder, parked = replace(DOING, lock="k"), replace(TODO, id=2, lock="k", hold="lock")
    check_state(state(holder, parked, replace(ENDED, id=3), k=1))
    check_step(state(TODO), state(DOING))
    check_step(state(DOING), state(TODO), unstarted=[1])
    check_step(state(ENDED), state(), deletable=[1])


@pytest.mark.parametrize(
    "broken",
    [
        state(replace(ENDED, finished_at=None)),
        state(replace(DOING, hold="schedule")),
        state(replace(DOING, worker_id=None)),
        state(replace(DOING, started_at=None)),
        state(replace(TODO, worker_id=7)),
        state(replace(TODO, hold="schedule")),
        state(replace(TODO, hold="lock")),
        state(replace(TODO, queueing_lock="q"), replace(TODO, id=2, queueing_lock="q")),
        state(replace(DOING, lock="k")),
        state(replace(DOING, lock="k"), replace(DOING, id=2, lock="k"), k=1),
        state(TODO, k=1),
        state(replace(TODO, lock="k", hold="lock")),
        state(replace(TODO, lock="k", hold="lock"), replace(TODO, id=2, lock="k")),
    ],
)
def test_a_state_that_must_not_be_is_noticed(broken: State) -> None:
    with pytest.raises(AssertionError):
        check_state(broken)


@pytest.mark.parametrize(
    "before, after",
    [
        (TODO, None),
        (TODO, ENDED),
        (ENDED, replace(ENDED, status=Status.FAILED)),
        (ENDED, replace(ENDED, priority=3)),
        (ENDED, TODO),
        (DOING, replace(TODO, attempts=0)),
        (TODO, replace(TODO, attempts=1)),
        (TODO, replace(DOING, attempts=2)),
        (replace(DOING, errors=("{}",)), replace(ENDED, errors=None)),
    ],
)
def test_a_step_that_must_not_be_is_noticed(before: JobRow, after: JobRow | None) -> None:
    with pytest.raises(AssertionError):
        check_step(state(before), state(*([after] if after else [])))


def job(row: JobRow) -> Job:
    return Job(row.id, Status.DOING, row.queue_name, row.task_name, {})


LATER = replace(TODO, id=2, priority=-1)


@pytest.mark.parametrize(
    "claimed, locks",
    [
        ([LATER, TODO], {}),
        ([TODO, LATER, replace(TODO, id=3)], {}),
        ([replace(TODO, id=4, queue_name="b")], {}),
        ([replace(TODO, id=5, hold="lock", lock="k")], {}),
        ([replace(TODO, id=6, lock="k")], {"k": 9}),
    ],
)
def test_a_claim_that_must_not_be_is_noticed(claimed: list[JobRow], locks: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check_claim(state(*claimed, **locks), [job(row) for row in claimed], ["a"], limit=2)


def test_what_can_be_claimed_is_what_is_free_and_the_first_of_each_free_line() -> None:
    jobs = [
        replace(TODO, id=1, lock="held"),
        replace(TODO, id=2, lock="free"),
        replace(TODO, id=3, lock="free", priority=1),
        replace(TODO, id=4, lock="free", priority=2, queue_name="elsewhere"),
        replace(TODO, id=5, lock="free", priority=3, hold="schedule"),
        replace(TODO, id=6),
        replace(TODO, id=7, priority=2),
        replace(DOING, id=8),
    ]
    assert claimable(state(*jobs, held=9), ["a"]) == [7, 3, 6]
