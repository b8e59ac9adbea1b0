"""W1, W2, W3 and W14: one worker empties a queue of jobs that do nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks import limits
from benchmarks.measures import Kind, Measure, Sample, at_least
from benchmarks.workers import drained, idle_worker
from benchmarks.workload import Bench, Round, Workload

JOBS = 50_000
CONCURRENCY = 100
ONE_STATEMENT = f"one statement per batch of {limits.BATCH}"
TIMED = (
    "from before the NOTIFY that wakes an idle worker until a look into the table finds the last"
    " job finished; the limit's loop alone"
)


def drain_rate(
    bench: Bench,
    *,
    count: int,
    task: str = "noop",
    analyze: bool = True,
    columns: str = "",
    values: str = "",
    **options: Any,
) -> float:
    """Return the jobs/s of one worker with these options, on a new database.

    ``columns`` and ``values`` are those of `Database.fill`.
    """
    bench.say(f"draining {count:,} jobs")
    with bench.server.database() as database, idle_worker(
        database, report_at=count, **options
    ) as worker:  # fmt: skip
        ids = database.fill(count, task=task, columns=columns, values=values)
        if analyze:
            database.analyze()
        return count / drained(database, worker, ids)


def limit_rate(
    bench: Bench, *, count: int, loop: Callable[[Any], float] = limits.drain_by_one_statement
) -> float:
    """Return the jobs/s of a loop of plain SQL, on a new database."""
    bench.say(f"limit: {count:,} jobs by plain SQL")
    with bench.server.empty_database() as dsn, limits.table(dsn) as cursor:
        limits.fill(cursor, count)
        return loop(cursor)


class _Drain(Workload):
    limit = f"plain SQL, {ONE_STATEMENT}"
    timed = TIMED
    task: ClassVar[str] = "noop"
    options: ClassVar[dict[str, Any]] = {}

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        limit = limit_rate(bench, count=count)
        ours = drain_rate(bench, count=count, task=self.task, **self.options)
        return {"drain": Sample(ours, limit)}


class DrainConcurrently(_Drain):
    key = "W1"
    title = "drain async jobs, concurrency 100"
    short = "drain, concurrency 100"
    options: ClassVar[dict[str, Any]] = {"concurrency": CONCURRENCY}
    measures = (
        Measure("drain", "jobs/s", at_least(0.8), against=ONE_STATEMENT),
        Measure("plain SQL, two statements", "jobs/s", None, Kind.AMOUNT),
    )

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        two = limit_rate(bench, count=count, loop=limits.drain_by_two_statements)
        return {**super().run(bench), "plain SQL, two statements": Sample(two)}


class DrainDefault(_Drain):
    key = "W2"
    title = "drain async jobs, default options"
    short = "drain, default options"
    measures = (Measure("drain", "jobs/s", at_least(0.5), against=ONE_STATEMENT),)


class DrainThreads(_Drain):
    key = "W3"
    title = "drain plain functions in threads"
    short = "drain, threads"
    task = "noop_sync"
    options: ClassVar[dict[str, Any]] = {"concurrency": CONCURRENCY}
    measures = (Measure("drain", "jobs/s", at_least(0.4), against=ONE_STATEMENT),)


class NeverAnalyzed(Workload):
    key = "W14"
    title = "drain on a new database, never analyzed"
    short = "W1, never analyzed"
    limit = "W1 on a database of the same size that was analyzed"
    timed = TIMED
    measures = (Measure("drain", "jobs/s", at_least(0.8), against="W1"),)

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        limit = drain_rate(bench, count=count, concurrency=CONCURRENCY)
        ours = drain_rate(bench, count=count, concurrency=CONCURRENCY, analyze=False)
        return {"drain": Sample(ours, limit)}
