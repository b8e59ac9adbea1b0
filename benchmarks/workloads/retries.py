"""W16: jobs that each fail once and are retried."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.measures import Kind, Measure, Sample, at_least, at_most
from benchmarks.workers import drained, idle_worker
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY, JOBS, drain_rate

FAILING = 5_000
ALLOWANCE = 1.3  # times the formatting of a traceback, which a failed attempt cannot do without
FORMATTED = 2_000  # tracebacks, to learn what one costs


@dataclass(frozen=True, slots=True)
class _Run:
    """What one drain took: seconds, the worker's CPU seconds, statements in its whole life."""

    seconds: float
    cpu: float
    statements: int


class Retries(Workload):
    key = "W16"
    title = "5,000 jobs that each fail once and are retried"
    short = "retries"
    limit = (
        "W1 for the rate; for CPU an attempt that succeeds and"
        f" {ALLOWANCE:g} times the formatting of a traceback of three frames"
    )
    timed = (
        "as W1. CPU is that of whole worker processes, and differences of three drains: what the"
        " failing jobs cost more than as many good ones, and what twice as many good ones do"
    )
    measures = (
        Measure("statements per attempt", "", at_most(0.05), Kind.AMOUNT),
        Measure("CPU of a failed attempt", "µs", at_most(1), against="good one and traceback"),
        Measure("drain", "jobs/s", at_least(0.15), against="W1"),
    )

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(FAILING, at_least=200)
        good = _drain(bench, count, "noop", attempts=count)
        twice = _drain(bench, 2 * count, "noop", attempts=2 * count)
        failing = _drain(bench, count, "fail_once", attempts=2 * count)
        limit = drain_rate(bench, count=bench.scale.of(JOBS, at_least=200), concurrency=CONCURRENCY)
        allowed = (twice.cpu - good.cpu) / count + ALLOWANCE * formatting_takes()
        return {
            "statements per attempt": Sample(failing.statements / (2 * count)),
            "CPU of a failed attempt": Sample(
                (failing.cpu - good.cpu) / count * 1e6, allowed * 1e6
            ),
            "drain": Sample(count / failing.seconds, limit),
        }


def _drain(bench: Bench, count: int, task: str, *, attempts: int) -> _Run:
    bench.say(f"draining {count:,} jobs of the task {task}, {attempts:,} attempts")
    with bench.server.database() as database, idle_worker(
        database, report_at=attempts, concurrency=CONCURRENCY, traced=True, quiet=True
    ) as worker:  # fmt: skip
        ids = database.fill(count, task=task)
        database.analyze()
        seconds = drained(database, worker, ids)
        last = worker.stop()
        return _Run(seconds, last["cpu_seconds"], len(last["statements"]))


def formatting_takes() -> float:
    """Return the CPU seconds that it takes to format an exception of three frames."""
    try:
        _attempt(1)
    except ValueError as exc:
        traceback.format_exception(exc)  # the source is read, once
        began = time.process_time()
        for _ in range(FORMATTED):
            traceback.format_exception(exc)
        return (time.process_time() - began) / FORMATTED
    raise AssertionError("it raises")


def _attempt(n: int) -> Any:
    return _called(_task, n=n)


def _called(function: Callable[..., Any], **arguments: Any) -> Any:
    return function(**arguments)


def _task(n: int) -> None:
    raise ValueError("this attempt fails")
