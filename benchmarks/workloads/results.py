"""W21: W1 with jobs whose results are kept."""

from __future__ import annotations

from benchmarks.measures import Measure, Sample, at_least
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY, JOBS, TIMED, drain_rate

_TASKS = {"result None": "keep_none", "result of 200 bytes": "keep_text"}


class KeptResults(Workload):
    key = "W21"
    title = "W1 with results that are kept"
    short = "results kept"
    limit = "W1, by tasks that keep no results"
    timed = TIMED
    measures = (
        Measure("result None", "jobs/s", at_least(0.99), against="W1"),
        Measure("result of 200 bytes", "jobs/s", at_least(0.9), against="W1"),
    )

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        return {name: self._pair(bench, count, task) for name, task in _TASKS.items()}

    def _pair(self, bench: Bench, count: int, task: str) -> Sample:
        limit = drain_rate(bench, count=count, concurrency=CONCURRENCY)
        ours = drain_rate(bench, count=count, task=task, concurrency=CONCURRENCY, keeps=True)
        return Sample(ours, limit)
