"""W20: the jobs of a plain server in 64 partitions, as a distributed database has them."""

from __future__ import annotations

import time

from benchmarks.measures import Kind, Measure, Sample, at_least, at_most
from benchmarks.workers import idle_worker, idle_workers, seconds_until_finished
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY, JOBS, TIMED, drain_rate
from benchmarks.workloads.idle import POLLING_INTERVAL, SETTLED_AFTER, WINDOW, WORKERS, used_in


class ManyPartitions(Workload):
    key = "W20"
    title = "W1 and W17 with the jobs in 64 partitions"
    short = "64 partitions"
    limit = "W1, with one partition"
    timed = TIMED
    measures = (
        Measure("drain", "jobs/s", at_least(0.8), against="W1"),
        Measure("server's CPU per second, one idle worker", "ms", at_most(2), Kind.AMOUNT),
        Measure(f"server's CPU per second, {WORKERS}", "ms", at_most(10), Kind.AMOUNT),
    )
    most_rounds = 3

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        limit = drain_rate(bench, count=count, concurrency=CONCURRENCY)
        ours = self._drain_rate(bench, count)
        one, several = (
            self._idle_cpu(bench, workers) for workers in (1, bench.scale.of(WORKERS, at_least=2))
        )
        return {
            "drain": Sample(ours, limit),
            "server's CPU per second, one idle worker": Sample(one),
            f"server's CPU per second, {WORKERS}": Sample(several),
        }

    def _drain_rate(self, bench: Bench, count: int) -> float:
        bench.say(f"draining {count:,} jobs of 64 partitions")
        with bench.server.partitioned_database() as database, idle_worker(
            database, report_at=count, concurrency=CONCURRENCY
        ) as worker:  # fmt: skip
            ids = database.fill(count)
            database.analyze()
            began = time.monotonic()
            database.wake()
            worker.hear("ran")
            return count / (seconds_until_finished(database, ids) - began)

    def _idle_cpu(self, bench: Bench, workers: int) -> float:
        """Return the milliseconds of CPU per second that idle workers cost the server."""
        window = max(2.0, WINDOW * bench.scale.factor)
        with bench.server.partitioned_database() as database:
            without = used_in(database, window)
            with idle_workers(database, workers, fetch_job_polling_interval=POLLING_INTERVAL):
                time.sleep(min(SETTLED_AFTER, window))
                bench.say(f"{workers} idle workers over 64 partitions")
                used = used_in(database, window)
        return max(0.0, used.cpu - without.cpu) / window * 1e3
