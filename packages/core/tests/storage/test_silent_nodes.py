"""Ticks of schedules while a node of a cluster is silent: what is asked, in what order."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate.drive import NoAnswer, Step, run_steps
from procrastinate.errors import ConnectionLost, PartitionAway, QueryCanceled
from procrastinate.model.partitions import Partitions
from procrastinate.model.periodic import DueTick, Timetable
from procrastinate.storage.periodic import APART, TOGETHER, Outcome, Round, defer_in_steps

MANY = Partitions(64)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SILENT = NoAnswer("the database has not answered within 4 s")
LATE = QueryCanceled("statement timeout", sqlstate="57014")
REFUSED = PartitionAway("connection refused", sqlstate="08006")
LOST = ConnectionLost("the connection broke")


class Cluster:
    """Answers steps. ``silent`` are the locks of schedules whose node fails with ``exc``."""

    def __init__(self, silent: Iterable[str], exc: Exception, timetable: Timetable) -> None:
        self.silent = set(silent)
        self.exc = exc
        self.timetable = timetable
        self.nodes = [
            [MANY.of_key(lock) for lock in silent],
            [MANY.of_key("well")],
        ]
        self.together: list[list[str]] = []  # the locks of the ticks of each try
        self.limits: list[object] = []
        self.is_there = True

    def run_step(self, step: Step) -> Any:
        said = inspect.getgeneratorlocals(step.flow)
        step.flow.close()
        name = step.flow.__name__
        if name == "partitions_by_node":
            if not self.is_there:
                raise LOST
            return self.nodes
        if name == "probe_partition":
            if said["partition"] in self.nodes[0]:
                raise self.exc
            return None
        due: list[DueTick] = said["due"]
        locks = [each.job.lock for each in due if each.job]
        self.together.append(locks)  # type: ignore[arg-type]
        self.limits.append(step.limit)
        if self.silent & set(locks):
            raise self.exc
        for each in due:
            self.timetable.settled(each.periodic.key, each.tick)
        return Round([], NOW)


def timetable_of(*locks: str) -> Timetable:
    app = procrastinate.App(connector=procrastinate.InMemoryConnector())
    for lock in locks:

        @app.periodic(cron="* * * * * *", lock=lock)
        @app.task(name=lock)
        def task(timestamp: int) -> None: ...

    timetable = Timetable(app._periodics_to_defer())
    for key in timetable.periodics:
        timetable.settled(key, NOW - timedelta(seconds=1))
    return timetable


def outcomes(result: Round) -> dict[str, Outcome]:
    return {each.due.periodic.task_name: each.outcome for each in result.settled}


@pytest.mark.parametrize("exc", [SILENT, LATE, REFUSED])
def test_the_schedules_of_a_silent_node_wait_and_the_others_are_deferred_together(
    exc: Exception,
) -> None:
    timetable = timetable_of("ill", "well", "sick", "fine")
    cluster = Cluster(["ill", "sick"], exc, timetable)
    result = run_steps(defer_in_steps(timetable, timetable.due(NOW), MANY), cluster.run_step)
    assert outcomes(result) == {"ill": Outcome.AWAY, "sick": Outcome.AWAY}
    assert sorted(cluster.together[0]) == ["fine", "ill", "sick", "well"]
    assert [sorted(each) for each in cluster.together[1:]] == [["fine", "well"]]
    assert cluster.limits == [TOGETHER, TOGETHER]
    assert timetable.due(NOW) == []
    assert [each.periodic.task_name for each in timetable.due_again(NOW)] == ["ill"]


def test_if_no_node_is_found_to_be_silent_each_schedule_is_deferred_by_itself() -> None:
    timetable = timetable_of("ill", "well")
    cluster = Cluster(["ill"], LATE, timetable)
    cluster.nodes.clear()
    result = run_steps(defer_in_steps(timetable, timetable.due(NOW), MANY), cluster.run_step)
    assert outcomes(result) == {"ill": Outcome.AWAY}
    assert sorted(cluster.together[1:]) == [["ill"], ["well"]]
    assert cluster.limits == [TOGETHER, APART, APART]


@pytest.mark.parametrize("is_there", [True, False])
def test_if_the_database_itself_is_silent_no_schedule_is_put_off(is_there: bool) -> None:
    """It may be there again when it is asked for its nodes."""
    timetable = timetable_of("ill")
    cluster = Cluster(["ill"], SILENT, timetable)
    cluster.nodes.clear()
    cluster.is_there = is_there
    due = timetable.due(NOW)
    with pytest.raises(ConnectionLost) as caught:
        run_steps(defer_in_steps(timetable, due, MANY), cluster.run_step)
    assert caught.value is (SILENT if is_there else LOST)
    assert timetable.due(NOW) == due
