"""The invariants of the machine notice what breaks them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from queue_invariants import (
    Told,
    check_claim,
    check_state,
    check_step,
    check_ticks,
    check_woken,
    claimable,
    matches,
    outlived,
)
from queue_sides import State

from procrastinate.model.job import Job, Status
from procrastinate.storage.jobs import JobFilter
from procrastinate.storage.periodic import Outcome
from procrastinate.testing._engine.values import JobRow, PeriodicRow

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TODO = JobRow(1, "a", "task", "{}", NOW)
AGAIN = replace(TODO, attempts=0, lease=1)
DOING = replace(TODO, status=Status.DOING, worker_id=7, started_at=NOW, attempts=1, lease=1)
ENDED = replace(DOING, status=Status.SUCCEEDED, finished_at=NOW)


MINUTE = timedelta(minutes=1)
NEW = PeriodicRow("t", "", done_until=NOW, seen_at=NOW)
USED = replace(NEW, last_tick=NOW, job_id=1)


def state(*jobs: JobRow, **locks: int) -> State:
    return State(NOW, {job.id: job for job in jobs}, locks, {})


def with_schedule(row: PeriodicRow | None, *jobs: JobRow) -> State:
    rows = {} if row is None else {(row.task_name, row.periodic_id): row}
    return replace(state(*jobs), periodics=rows)


def test_a_queue_in_order_breaks_none() -> None:
    holder, parked = replace(DOING, lock="k"), replace(TODO, id=2, lock="k", hold="lock")
    check_state(state(holder, parked, replace(ENDED, id=3), k=1))
    check_step(state(TODO), state(DOING))
    check_step(state(DOING), state(AGAIN), unstarted=[1])
    check_step(state(ENDED), state(), deletable=[1])
    check_step(state(replace(ENDED, status=Status.FAILED)), state(AGAIN))
    check_step(with_schedule(NEW), with_schedule(USED))


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
        state(replace(TODO, abort_requested=True)),
        state(replace(TODO, attempts=1)),
        state(replace(TODO, result="1")),
        state(replace(ENDED, status=Status.FAILED, result_error="too large")),
        with_schedule(replace(NEW, last_tick=NOW)),
        with_schedule(replace(NEW, job_id=1)),
        with_schedule(replace(USED, last_tick=NOW + MINUTE)),
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
        (ENDED, AGAIN),
        (DOING, AGAIN),
        (DOING, replace(TODO, attempts=1, lease=2)),
        (TODO, replace(TODO, attempts=1)),
        (TODO, replace(DOING, attempts=2)),
        (TODO, replace(DOING, lease=0)),
        (TODO, replace(DOING, lease=2)),
        (AGAIN, TODO),
        (replace(DOING, errors=("{}",)), replace(ENDED, errors=None)),
        (replace(DOING, abort_requested=True), replace(AGAIN, attempts=1)),
        (replace(DOING, abort_requested=True), DOING),
        (replace(DOING, abort_requested=True), replace(ENDED, status=Status.FAILED)),
        (replace(ENDED, status=Status.FAILED), replace(AGAIN, attempts=1)),
        (replace(ENDED, status=Status.FAILED), replace(AGAIN, crashes=1)),
    ],
)
def test_a_step_that_must_not_be_is_noticed(before: JobRow, after: JobRow | None) -> None:
    with pytest.raises(AssertionError):
        check_step(state(before), state(*([after] if after else [])))


@pytest.mark.parametrize(
    "before, after",
    [
        (NEW, None),
        (NEW, replace(NEW, done_until=NOW - MINUTE)),
        (USED, NEW),
        (USED, replace(USED, last_tick=NOW - MINUTE)),
        (USED, replace(USED, job_id=2)),
    ],
)
def test_a_step_back_of_a_schedule_is_noticed(
    before: PeriodicRow, after: PeriodicRow | None
) -> None:
    with pytest.raises(AssertionError):
        check_step(with_schedule(before), with_schedule(after))


FAILED = replace(ENDED, status=Status.FAILED)


@pytest.mark.parametrize(
    "before, after, woken",
    [
        (state(DOING), state(ENDED), [1]),
        (state(DOING), state(), [1]),
        (state(TODO), state(DOING), []),
        (state(FAILED), state(AGAIN), []),
        (state(ENDED), state(), []),
        (state(replace(DOING, id=2)), state(), []),
    ],
)
def test_who_waits_is_told_of_ends_and_of_nothing_else(
    before: State, after: State, woken: list[int]
) -> None:
    check_woken(before, after, [1, 3], woken)
    with pytest.raises(AssertionError):
        check_woken(before, after, [1, 3], [] if woken else [1])


DEFERRED = Told(("t", ""), Outcome.DEFERRED, 1)


def test_one_job_for_each_tick_breaks_nothing() -> None:
    check_ticks(with_schedule(NEW), with_schedule(USED, TODO), [DEFERRED])
    check_ticks(with_schedule(NEW), with_schedule(NEW), [Told(("t", ""), Outcome.GIVEN_UP, None)])


@pytest.mark.parametrize(
    "after, told",
    [
        (with_schedule(USED), [DEFERRED]),
        (with_schedule(USED, TODO), [DEFERRED, DEFERRED]),
        (with_schedule(USED, TODO, replace(TODO, id=2)), [DEFERRED]),
        (with_schedule(NEW, TODO), [DEFERRED]),
        (with_schedule(USED, TODO), [replace(DEFERRED, outcome=Outcome.WAITING)]),
        (with_schedule(USED), [replace(DEFERRED, job_id=None)]),
    ],
)
def test_a_tick_without_just_its_job_is_noticed(after: State, told: list[Told]) -> None:
    with pytest.raises(AssertionError):
        check_ticks(with_schedule(NEW), after, told)


@pytest.mark.parametrize(
    "which, expected",
    [
        (JobFilter(), True),
        (JobFilter(ids=[7, 1], queue="a", task="task", statuses=[Status.TODO]), True),
        (JobFilter(ids=[7]), False),
        (JobFilter(queue="b"), False),
        (JobFilter(task="other"), False),
        (JobFilter(statuses=[Status.DOING]), False),
        (JobFilter(lock="k"), False),
        (JobFilter(queueing_lock="q"), False),
        (JobFilter(worker_id=7), False),
    ],
)
def test_a_filter_matches_what_has_all_that_it_names(which: JobFilter, expected: bool) -> None:
    assert matches(TODO, which) is expected


def test_what_is_outlived_has_ended_so_and_there_and_long_enough_ago() -> None:
    old = replace(ENDED, finished_at=NOW - 5 * MINUTE)
    jobs = [
        old,
        replace(old, id=2, finished_at=NOW - 3 * MINUTE),
        replace(old, id=3, status=Status.FAILED),
        replace(old, id=4, queue_name="b"),
        replace(old, id=5, status=Status.TODO),
    ]
    assert outlived(state(*jobs), {Status.SUCCEEDED: 4 * MINUTE}, "a") == {1}


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
    assert claimable(state(*jobs, held=9), ["a"], served=["a"]) == [7, 3, 6]
    assert claimable(state(*jobs, held=9), ["a"], served=None) == [7, 6]
    assert claimable(state(*jobs, held=9), ["a", "elsewhere"], served=None) == [4, 7, 6]
