"""W22: programs that wait for jobs to end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.databases import Database
from benchmarks.measures import Kind, Measure, Sample, at_least, at_most, quantile
from benchmarks.workers import (
    Process,
    WorkerFailed,
    drained,
    idle_worker,
    until,
)
from benchmarks.workload import Bench, Round, Workload

JOBS = 10_000
SLOTS, LENGTH = 20, "5ms"
STEADY_JOBS = 1_000
STEADY_SLOTS, STEADY_LENGTH = 10, "50ms"  # 200 jobs end in a second
DEAF_JOBS = 1_000

_WAITS = "select count(*) from procrastinate_waits"
_LISTENER = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where datname = current_database() and query ilike 'listen %%procrastinate_ends_%%'"
)
_END_ALL = (
    "update procrastinate_jobs set status = 'succeeded', finished_at = clock_timestamp()"
    " where status = 'todo'"
)


class Waiting(Workload):
    key = "W22"
    title = "programs that wait for jobs"
    short = "waiting"
    limit = "the same drain while nobody waits"
    timed = (
        f"drain: as W1, {JOBS:,} jobs of {LENGTH} on {SLOTS} slots, each waited for by a coroutine"
        " of another process; resumed: from a job's finished_at until its waiter goes on, at 200"
        f" jobs a second; listener killed: {DEAF_JOBS:,} jobs that end, without a notification,"
        " right after it, until the last waiter goes on"
    )
    measures = (
        Measure("drain", "jobs/s", at_least(0.97), against="nobody waits"),
        Measure("ended to resumed, p50", "ms", None, Kind.AMOUNT),
        Measure("ended to resumed, p99", "ms", at_most(25), Kind.AMOUNT),
        Measure("listener killed: all resumed", "s", at_most(6), Kind.AMOUNT),
        Measure("rows left in procrastinate_waits", "", at_most(0), Kind.AMOUNT),
    )
    most_rounds = 3

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        limit, _ = self._drain(bench, count, waiters=0)
        ours, left = self._drain(bench, count, waiters=count)
        delays, left_steady = self._steady(bench)
        deaf, left_deaf = self._deaf(bench)
        return {
            "drain": Sample(ours, limit),
            "ended to resumed, p50": Sample(quantile(delays, 0.5) * 1e3),
            "ended to resumed, p99": Sample(quantile(delays, 0.99) * 1e3),
            "listener killed: all resumed": Sample(deaf),
            "rows left in procrastinate_waits": Sample(left + left_steady + left_deaf),
        }

    def _drain(self, bench: Bench, count: int, *, waiters: int) -> tuple[float, int]:
        """Return the jobs/s, and how many rows of waits are left."""
        bench.say(f"draining {count:,} jobs that {waiters:,} wait for")
        with bench.server.database() as database, idle_worker(
            database,
            report_at=count,
            concurrency=SLOTS,
            lengths=[LENGTH, count],
            keeps=True,
        ) as worker:  # fmt: skip
            ids = database.fill(count, task="sleep_and_keep")
            database.analyze()
            with waiting(database, ids[:waiters]) as process:
                rate = count / drained(database, worker, ids)
                _all_resumed(process, waiters)
            return rate, _left(database)

    def _steady(self, bench: Bench) -> tuple[list[float], int]:
        """Return the seconds from each end until its waiter goes on, and the rows left."""
        count = bench.scale.of(STEADY_JOBS, at_least=50)
        bench.say(f"{count:,} jobs, one every 5 ms")
        with bench.server.database() as database, idle_worker(
            database,
            report_at=count,
            concurrency=STEADY_SLOTS,
            lengths=[STEADY_LENGTH, count],
            keeps=True,
        ) as worker:  # fmt: skip
            ids = database.fill(count, task="sleep_and_keep")
            with waiting(database, ids) as process:
                drained(database, worker, ids)
                delays: list[float] = process.hear("resumed")["delays"]
                process.hear("closed")
            return delays, _left(database)

    def _deaf(self, bench: Bench) -> tuple[float, int]:
        """Return the seconds from the end of all jobs, unheard, until all waiters go on."""
        count = bench.scale.of(DEAF_JOBS, at_least=50)
        bench.say(f"{count:,} jobs that end unheard")
        with bench.server.database() as database:
            ids = database.fill(count, task="sleep_and_keep")
            with waiting(database, ids) as process:
                if not database.ask(_LISTENER):
                    raise WorkerFailed("no connection listens for the ends of jobs")
                began = time.monotonic()
                database.run(_END_ALL)
                took: float = process.hear("resumed")["monotonic"] - began
                process.hear("closed")
            return took, _left(database)


@contextmanager
def waiting(database: Database, ids: range) -> Iterator[Process]:
    """A process that waits for these jobs, and whose waits are all registered."""
    process = Process("benchmarks.waiters", dsn=database.dsn, ids=[ids.start, ids.stop])
    try:
        process.hear("waiting")
        until(database, _WAITS, len(ids))
        time.sleep(0.3)  # its second look at the jobs is over
        yield process
    finally:
        process.kill()


def _all_resumed(process: Process, count: int) -> None:
    if process.hear("resumed")["resumed"] != count:
        raise WorkerFailed("not all waiters were resumed")
    process.hear("closed")


def _left(database: Database) -> int:
    """Return how many rows of waits are left once all programs have ended."""
    count: int = database.ask(_WAITS)
    return count
