"""W9: a queue that is refilled and drained for minutes, also while nothing can be vacuumed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psycopg2

from benchmarks.databases import Database, connected
from benchmarks.measures import Measure, Sample, at_least
from benchmarks.workers import WorkerFailed, WorkerProcess, idle_worker
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY

SECONDS = 120.0
WINDOW = 1 / 6  # of the whole time: 20 seconds of two minutes
LEVEL = 10_000  # jobs that wait at most
REFILL = 5_000
_WINDOWS = "the first sixth of the time"


class Sustained(Workload):
    key = "W9"
    title = "continuous refill and drain"
    short = "refill and drain"
    limit = "the same run's first 20 seconds (of 120)"
    timed = (
        f"bodies entered in the first and the last sixth of the time, while another process keeps"
        f" up to {LEVEL:,} jobs waiting"
    )
    measures = (
        Measure("as it is", "jobs/s", at_least(0.9), against=_WINDOWS),
        Measure("snapshot held open", "jobs/s", at_least(0.7), against=_WINDOWS),
    )
    most_rounds = 1

    def run(self, bench: Bench) -> Round:
        seconds = max(6.0, SECONDS * bench.scale.factor * 2)
        seconds = min(seconds, SECONDS)
        return {
            measure.name: self._ours(bench, measure.name, seconds, pinned=pinned)
            for measure, pinned in zip(self.measures, (False, True), strict=True)
        }

    def _ours(self, bench: Bench, name: str, seconds: float, *, pinned: bool) -> Sample:
        bench.say(f"{seconds:.0f} s of refill and drain, {name}")
        with ExitStack() as stack:
            database = stack.enter_context(bench.server.database())
            worker = stack.enter_context(
                idle_worker(database, concurrency=CONCURRENCY, report=True)
            )
            if pinned:
                stack.enter_context(_open_snapshot(database.dsn))
            counts = stack.enter_context(_refilled(database))
            return _first_and_last(_watched(worker, counts, seconds), seconds * WINDOW)


class Refill:
    """Keeps a number of jobs waiting; ``ran`` is told what has run."""

    def __init__(self, dsn: str) -> None:
        self.ran = 0
        self.error: Exception | None = None
        self._inserted = 0
        self._dsn = dsn
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with connected(self._dsn) as cursor:
                database = Database(self._dsn, cursor)
                while not self._ended.wait(0.02):
                    while self._inserted - self.ran < LEVEL:
                        database.fill(REFILL)
                        database.wake()
                        self._inserted += REFILL
        except Exception as exc:
            self.error = exc


@contextmanager
def _refilled(database: Database) -> Iterator[Refill]:
    refill = Refill(database.dsn)
    refill.start()
    try:
        yield refill
    finally:
        refill.stop()


@contextmanager
def _open_snapshot(dsn: str) -> Iterator[None]:
    connection = psycopg2.connect(dsn)
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from procrastinate_jobs")
            yield
    finally:
        connection.close()


def _watched(worker: WorkerProcess, refill: Refill, seconds: float) -> list[tuple[float, int]]:
    """Return (seconds, jobs run so far) of several looks a second, until it has been so long."""
    first = _next(worker, refill)
    while not (second := _next(worker, refill))[1]:
        first = second
    began = first[0]
    seen = [(0.0, first[1])]
    while seen[-1][0] < seconds:
        moment, ran = _next(worker, refill)
        seen.append((moment - began, ran))
    return seen


def _next(worker: WorkerProcess, refill: Refill) -> tuple[float, int]:
    message = worker.hear("ran")
    if refill.error is not None:
        raise WorkerFailed(f"the queue could not be refilled: {refill.error}")
    refill.ran = message["ran"]
    return message["monotonic"], message["ran"]


def _first_and_last(seen: Sequence[tuple[float, int]], window: float) -> Sample:
    """Return the rates of the last and the first window of a run."""
    end = seen[-1][0]
    first = seen[: 1 + sum(each[0] <= window for each in seen)]  # at least two looks
    last = [each for each in seen if each[0] >= end - window]
    sample = Sample(ours=_rate(last), limit=_rate(first))
    if not sample.limit:
        raise WorkerFailed("no job ran in the first window")
    return sample


def _rate(seen: Sequence[tuple[float, int]]) -> float:
    (began, before), (ended, after) = seen[0], seen[-1]
    return (after - before) / (ended - began) if ended > began else 0.0
