"""Ten workers, 2,000 jobs over 50 locks, workers killed at random: order and exclusion hold.

What is checked, from the times that the tasks stored:

- Exclusion: no two runs of jobs with one lock overlap. A run whose worker was killed ended then.
- Order: no run began while a job that comes before it in its lock's line, by (priority, id), had
  been waiting and due for `SURELY_SEEN`. A job that lost its worker is out of the line until
  somebody has found that out, so from its first crash on it is not held against the others.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import procrastinate

APP = Path(__file__).with_name("chaos_app.py")
WORKERS, JOBS, LOCKS = 10, 2_000, 50
KILLING_LASTS = 8.0  # seconds
ALL_MAY_TAKE = 150.0  # seconds, on a machine that is busy with other things
#: How long it may take, on a machine that is busy with other things, until a job that failed or
#: came due is in line again, and from a claim, which decides about the order, to the run.
SURELY_SEEN = timedelta(seconds=5)
OPTIONS = {
    "concurrency": 1,  # so that ten take half of the connections of a server that others use too
    "update_heartbeat_interval": 0.3,
    "stalled_worker_timeout": 2.0,
    "fetch_job_polling_interval": 1.0,
}
RUNS = """
    create table chaos_runs (
        token text primary key, job_id bigint not null, attempt integer not null,
        worker integer not null, began timestamptz not null, ended timestamptz, outcome text
    )
"""

Query = Callable[..., list[tuple[Any, ...]]]


@dataclass
class Run:
    began: datetime
    ended: datetime


@dataclass
class Job:
    id: int
    lock: str
    priority: int
    due: datetime
    crashes: int
    runs: list[Run] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, int]:
        return (-self.priority, self.id)

    def surely_waited_at(self, moment: datetime) -> bool:
        """Whether it was due and not running since long before, and ran later."""
        if self.crashes or not any(run.began > moment for run in self.runs):
            return False
        earlier = [run.ended for run in self.runs if run.began <= moment]
        in_line_since_the_start = self.priority < 2 and not earlier
        return in_line_since_the_start or max([self.due, *earlier]) < moment - SURELY_SEEN


class Fleet:
    """Worker processes that are killed now and then, and replaced."""

    def __init__(self, dsn: str, seed: int) -> None:
        self._dsn = dsn
        self._random = random.Random(seed)
        self._workers: list[subprocess.Popen[bytes]] = []
        self.killed: list[int] = []

    def start(self, count: int) -> None:
        command = [sys.executable, str(APP), self._dsn, self._dsn, json.dumps(OPTIONS)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._workers += [subprocess.Popen(command, **quiet) for _ in range(count)]

    def kill_one(self) -> int:
        worker = self._workers.pop(self._random.randrange(len(self._workers)))
        worker.kill()
        worker.wait()
        self.killed.append(worker.pid)
        self.start(1)
        return worker.pid

    def stop(self) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(ALL_MAY_TAKE + 60)
def test_order_and_exclusion_hold_while_workers_are_killed_at_random(
    sync_app: procrastinate.App, dsn: str, query: Query
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    query(RUNS)
    defer_all(sync_app, random.Random(seed))
    fleet = Fleet(dsn, seed)
    try:
        fleet.start(WORKERS)
        kill_while_they_work(fleet, query, random.Random(seed))
        until_all_ended(query)
    finally:
        fleet.stop()

    jobs = read(query)
    assert list(overlaps(jobs)) == []
    assert list(wrong_order(jobs)) == []
    assert query("select * from procrastinate_locks") == []
    assert problems(query) == []
    assert len(fleet.killed) >= 4
    assert sum(job.crashes > 0 for job in jobs) > 0, "no job lost its worker: nothing was shown"


def defer_all(app: procrastinate.App, draw: random.Random) -> None:
    """Jobs of two priorities, some of them for later, some that fail once and are tried again."""
    for n in range(LOCKS):
        for priority in (0, 1):
            task = app.configure_task("on_the_loop", lock=f"lock {n}", priority=priority)
            task.batch_defer(*[_arguments(draw) for _ in range(JOBS // LOCKS // 2 - 3)])
        later = {"seconds": draw.uniform(1, 8)}
        task = app.configure_task("on_the_loop", lock=f"lock {n}", priority=2, schedule_in=later)
        task.batch_defer(*[_arguments(draw) for _ in range(6)])


def _arguments(draw: random.Random) -> dict[str, Any]:
    return {"seconds": draw.uniform(0, 0.02), "failing": int(draw.random() < 0.1)}


def kill_while_they_work(fleet: Fleet, query: Query, draw: random.Random) -> None:
    until(lambda: query("select count(*) from chaos_runs")[0][0] > 20)
    end = time.monotonic() + KILLING_LASTS
    while time.monotonic() < end and not all_ended(query):
        pid = fleet.kill_one()
        query(
            "update chaos_runs set ended = clock_timestamp(), outcome = 'killed'"
            " where worker = %s and ended is null",
            pid,
        )
        pause = time.monotonic() + draw.uniform(0.6, 1.4)
        until(lambda: time.monotonic() >= pause)  # noqa: B023


def all_ended(query: Query) -> bool:
    left = "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))"
    return not query(left)[0][0]


def until_all_ended(query: Query) -> None:
    until(lambda: all_ended(query))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ALL_MAY_TAKE
    while not condition():
        assert time.monotonic() < deadline, f"not within {ALL_MAY_TAKE} s"
        time.sleep(0.05)


def read(query: Query) -> list[Job]:
    jobs = {
        row[0]: Job(*row)
        for row in query(
            "select id, lock, priority, least(scheduled_at, deferred_at), crashes"
            " from procrastinate_jobs"
        )
    }
    # A retry overwrites the time; those of priority 2 were deferred for at most 8 seconds later.
    for job in jobs.values():
        job.due += timedelta(seconds=8) if job.priority == 2 else timedelta()
    for job_id, began, ended in query("select job_id, began, ended from chaos_runs order by began"):
        jobs[job_id].runs.append(Run(began, ended))
    return list(jobs.values())


def _lines(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    lines = defaultdict(list)
    for job in jobs:
        lines[job.lock].append(job)
    yield from lines.values()


def overlaps(jobs: Iterable[Job]) -> Iterator[str]:
    for line in _lines(jobs):
        runs = sorted((run.began, run.ended, job.id) for job in line for run in job.runs)
        for one, two in pairwise(runs):
            if one[1] > two[0]:
                yield f"two at a time: {one} {two}"


def wrong_order(jobs: Iterable[Job]) -> Iterator[str]:
    for line in _lines(jobs):
        for job in line:
            before = [other for other in line if other.rank < job.rank]
            for run in job.runs:
                overtaken = [other for other in before if other.surely_waited_at(run.began)]
                if overtaken:
                    yield f"{run.began}: {job} before {overtaken}"


def problems(query: Query) -> list[tuple[Any, ...]]:
    """Return the jobs that did not end well, but for those that killed too many workers."""
    return query(
        "select id, status::text, errors from procrastinate_jobs where status <> 'succeeded'"
        " and errors -> -1 ->> 'type' is distinct from 'procrastinate.errors.WorkerLost'"
    )
