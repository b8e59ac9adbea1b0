"""W12: memory, import and start."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measures import Kind, Measure, Sample, at_most
from benchmarks.workers import WorkerProcess, drained, idle_worker
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY

JOBS = 200_000
_IMPORT = (
    "import time; t = time.perf_counter(); import procrastinate; print(time.perf_counter() - t)"
)


class Footprint(Workload):
    key = "W12"
    title = "peak memory, import, and start to first job"
    short = "footprint"
    limit = "none: amounts"
    timed = (
        "memory: the worker process's peak resident set; import: in a new interpreter, files"
        " cached; start: from before the process is made to the first body, with a job waiting"
    )
    measures = (
        Measure("peak memory", "MiB", at_most(80), Kind.AMOUNT),
        Measure("import procrastinate", "ms", at_most(150), Kind.AMOUNT),
        Measure("start to first job", "s", at_most(0.6), Kind.AMOUNT),
    )
    most_rounds = 3

    def run(self, bench: Bench) -> Round:
        return {
            "peak memory": Sample(self._peak_mib(bench)),
            "import procrastinate": Sample(_import_ms()),
            "start to first job": Sample(self._start_seconds(bench)),
        }

    def _peak_mib(self, bench: Bench) -> float:
        count = bench.scale.of(JOBS, at_least=200)
        bench.say(f"peak memory of a worker that drains {count:,} jobs")
        with bench.server.database() as database, idle_worker(
            database, report_at=count, concurrency=CONCURRENCY
        ) as worker:  # fmt: skip
            drained(database, worker, database.fill(count))
            peak: float = worker.stop()["peak_mib"]
            return peak

    def _start_seconds(self, bench: Bench) -> float:
        bench.say("starting a worker")
        with bench.server.database() as database:
            database.fill(1, task="tell")
            worker = WorkerProcess(database.dsn)
            try:
                began: float = worker.hear("began")["began"]
                return began - worker.spawned
            finally:
                worker.kill()


def _import_ms() -> float:
    command = [sys.executable, "-c", _IMPORT]
    subprocess.run(command, check=True, capture_output=True)  # compiled, and in the file cache
    return float(subprocess.run(command, check=True, capture_output=True).stdout) * 1e3
