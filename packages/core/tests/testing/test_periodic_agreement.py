"""The statements of periodic tasks do the same in memory and in PostgreSQL: random steps, compared.

A failure names its seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate import drive
from procrastinate.drive import Flow
from procrastinate.model.job import NewJob
from procrastinate.model.periodic import DueTick, Periodic, Timetable, schedule_from
from procrastinate.storage import periodic
from procrastinate.storage.statements import Statements
from procrastinate.testing import InMemoryConnector

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
STEPS = 60
SCHEDULES = [
    Periodic("t", name, schedule_from("* * * * *", "UTC"), HOUR, lambda tick: NewJob("t"))
    for name in ("", "p", "q")
]

sql = Statements()


def ticks(draw: random.Random, now: datetime) -> list[DueTick]:
    """Some of the past, of now and of the future, with and without jobs."""
    moments = [now - HOUR, now - MICROSECOND, now, now, now + HOUR]
    return [
        DueTick(draw.choice(SCHEDULES), tick, draw.choice([None, job(draw), job(draw)]))
        for tick in sorted(draw.sample(moments, draw.randint(1, 4)))
    ]


def job(draw: random.Random) -> NewJob:
    return NewJob(
        "t",
        queue=draw.choice("ab"),
        priority=draw.randint(-1, 1),
        lock=draw.choice([None, "l"]),
        queueing_lock=draw.choice([None, None, "x", "y"]),
        args=draw.choice(["{}", '{"a":1.50,"timestamp":7}']),
    )


def told(due: list[DueTick]) -> Flow[list[Any]]:
    """What became of each tick, and what the timetable is told (whether it is told)."""
    timetable = Timetable(SCHEDULES)
    result = yield from periodic.defer_ticks(sql, timetable, due)
    return [
        *((each.outcome, each.job_id is not None) for each in result.settled),
        sorted(key for key in timetable.periodics if key in timetable._done_until),
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_steps_do_the_same_in_memory_and_in_postgresql(
    sync_app: procrastinate.App, query: Callable[..., list[tuple[Any, ...]]], seed: int
) -> None:
    draw, memory = random.Random(seed), InMemoryConnector().sync_connector()
    memory_app = procrastinate.App(connector=memory)

    def in_memory(flow: Flow[Any]) -> Any:
        with memory.session() as executor:
            return drive.run(flow, executor)

    for step in range(STEPS):
        ((now,),) = query("select clock_timestamp()")
        memory.clock.freeze(now.astimezone(UTC))
        if draw.random() < 0.2:
            some = draw.sample(SCHEDULES, 2)
            for run in (sync_app._gateway.run, in_memory):
                timetable = Timetable(some)
                run(periodic.look(sql, timetable))
                assert timetable.complete
        else:
            due = ticks(draw, now.astimezone(UTC))
            assert in_memory(told(due)) == sync_app._gateway.run(told(due)), (seed, step)
        here, there = _jobs(memory.jobs), _jobs(sync_app.job_manager.list_jobs(limit=1_000))
        assert here == there, (seed, step)
        assert _rows(memory) == _rows_of(query), (seed, step)
        if here and draw.random() < 0.2:
            # Their queueing locks are free again.
            place = draw.randrange(len(here))
            for app in (sync_app, memory_app):
                app.job_manager.cancel_job_by_id(app.job_manager.list_jobs(limit=1_000)[place].id)


def _jobs(jobs: list[Any]) -> list[tuple[Any, ...]]:
    """Everything but the ids, of which a refused insert uses up one here and there alike."""
    return [
        (each.status, each.queue, each.priority, each.lock, each.queueing_lock, each.task_kwargs)
        for each in jobs
    ]


def _rows(memory: Any) -> list[tuple[Any, ...]]:
    rows = memory._store._tables.periodics.committed
    return [(*key, row.last_tick, row.job_id is not None) for key, row in sorted(rows.items())]


def _rows_of(query: Callable[..., list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    return query(
        "select task_name, periodic_id, last_tick, job_id is not null"
        " from procrastinate_periodic order by 1, 2"
    )
