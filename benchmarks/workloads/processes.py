"""W10: several worker processes on one queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.databases import connected
from benchmarks.measures import Kind, Measure, Sample, at_least, at_most
from benchmarks.workers import idle_workers, seconds_until_finished
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY, JOBS

_ONE = "one process"
LOOK_EVERY = 0.01  # seconds


class Processes(Workload):
    key = "W10"
    title = "2 and 4 worker processes on one queue"
    short = "processes"
    limit = "one worker process"
    timed = (
        "as W1, until the last job is seen finished; bodies are counted in the workers, and every"
        f" {LOOK_EVERY * 1e3:.0f} ms a look at pg_stat_activity sees who waits for whose lock"
    )
    measures = (
        Measure("2 processes", "jobs/s", at_least(1.3), against=_ONE),
        Measure("4 processes", "jobs/s", None, against=_ONE),
        Measure("jobs run twice", "jobs", at_most(0), Kind.AMOUNT),
        Measure("blocked, share of looks", "%", at_most(1), Kind.AMOUNT),
    )

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        one = _drain(bench, count, 1)
        two = _drain(bench, count, 2)
        four = _drain(bench, count, 4)
        return {
            "2 processes": Sample(two.rate, one.rate),
            "4 processes": Sample(four.rate, one.rate),
            "jobs run twice": Sample(two.twice + four.twice),
            "blocked, share of looks": Sample(max(two.blocked, four.blocked)),
        }


class _Drained:
    def __init__(self, rate: float, twice: int, blocked: float) -> None:
        self.rate = rate
        self.twice = twice
        self.blocked = blocked


def _drain(bench: Bench, count: int, processes: int) -> _Drained:
    bench.say(f"draining {count:,} jobs with {processes} processes")
    with bench.server.database() as database, idle_workers(
        database, processes, concurrency=CONCURRENCY
    ) as workers:  # fmt: skip
        ids = database.fill(count)
        database.analyze()
        with _watching_locks(database.dsn) as looks:
            began = time.monotonic()
            database.wake()
            seconds = seconds_until_finished(database, ids) - began
        bodies = sum(worker.stop()["ran"] for worker in workers)
        again = database.ask("select count(*) from procrastinate_jobs where attempts > 1")
        blocked = 100 * sum(looks) / len(looks) if looks else 0.0
        return _Drained(count / seconds, max(abs(bodies - count), again), blocked)


@contextmanager
def _watching_locks(dsn: str) -> Iterator[list[bool]]:
    """A growing list: whether each look saw a statement on jobs that waited for a row's lock."""
    looks: list[bool] = []
    ended = threading.Event()

    def watch() -> None:
        with connected(dsn) as cursor:
            while not ended.wait(LOOK_EVERY):
                cursor.execute(
                    "select exists (select from pg_stat_activity where datname = current_database()"
                    " and wait_event_type = 'Lock' and wait_event in ('tuple', 'transactionid'))"
                )
                looks.append(cursor.fetchone()[0])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield looks
    finally:
        ended.set()
        thread.join()
