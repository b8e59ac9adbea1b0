"""W24: a drain while people look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.databases import Database
from benchmarks.measures import Measure, Sample, at_least
from benchmarks.workers import Process, drained, idle_worker
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY

JOBS = 500_000  # so that it lasts for several looks of each tab
ENDED = 100_000  # jobs that the pages show beside them, half of which failed
TABS = 5

_FAILED = (
    ", status, attempts, started_at, finished_at, errors",
    """, 'failed', 1, now(), now(), jsonb_build_array(jsonb_build_object('attempt', 1, 'at', '',
    'type', 'ValueError', 'message', 'no such customer: ' || n, 'traceback', '')) """,
)
_SUCCEEDED = (", status, attempts, started_at, finished_at", ", 'succeeded', 1, now(), now()")


class Watched(Workload):
    key = "W24"
    title = "W1 with five tabs of the dashboard open"
    short = "W1 with a dashboard"
    limit = "the same drain while nobody looks"
    timed = (
        f"as W1, {JOBS:,} jobs beside {ENDED:,} that have ended; {TABS} pages are asked for every"
        " two seconds in one process, which has the two cores in common with the others"
    )
    measures = (Measure("drain", "jobs/s", at_least(0.97), against="nobody looks"),)
    most_rounds = 3

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        limit = self._drain(bench, count, tabs=0)
        return {"drain": Sample(self._drain(bench, count, tabs=TABS), limit)}

    def _drain(self, bench: Bench, count: int, *, tabs: int) -> float:
        bench.say(f"draining {count:,} jobs with {tabs} tabs open")
        with (
            bench.server.database() as database,
            idle_worker(database, report_at=count, concurrency=CONCURRENCY) as worker,
        ):
            for columns, values in (_FAILED, _SUCCEEDED):
                database.fill(bench.scale.of(ENDED) // 2, columns=columns, values=values)
            ids = database.fill(count)
            database.run("vacuum (analyze) procrastinate_jobs")
            with open_tabs(database, tabs):
                return count / drained(database, worker, ids)


@contextmanager
def open_tabs(database: Database, tabs: int) -> Iterator[None]:
    """Tabs of the dashboard that have been looked at once."""
    if not tabs:
        yield
        return
    process = Process("benchmarks.tabs", dsn=database.dsn, tabs=tabs)
    try:
        process.hear("open")
        yield
    finally:
        process.kill()
