"""W18: W1 and W6 with the connectors that run workers; W4 with all, beside their users' plain SQL.

The drivers are imported when they are used: an older version that is compared has none of them.
"""

from __future__ import annotations

import time
from typing import ClassVar

import procrastinate
from benchmarks import limits
from benchmarks.measures import Measure, Sample, at_least, at_most, quantile
from benchmarks.workers import idle_worker
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads import single_defers
from benchmarks.workloads.drain import CONCURRENCY, ONE_STATEMENT, drain_rate, limit_rate

DRAINED, DEFERRED, TOLD = 30_000, 2_000, 200
_OWN = "insert and commit as its users write it"
_BELOW = "insert and commit, driver below"


class Drivers(Workload):
    key = "W18"
    title = "each connector: drain, defer, latency"
    short = "connectors"
    limit = f"drain: plain SQL, {ONE_STATEMENT}; defer: {_OWN}; latency: insert + claim"
    timed = "as in W1, W4 and W6"
    #: The names of asynchronous connectors and of their synchronous halves.
    of_workers: ClassVar[tuple[str, ...]] = ("aiopg", "psycopg", "asyncpg")
    measures = (
        *(Measure(f"{name}: drain", "jobs/s", at_least(0.85), against=ONE_STATEMENT)
          for name in of_workers),
        *(Measure(f"{name}: defer", "jobs/s", at_least(0.85), against=_OWN)
          for name in single_defers.ALL),
        *(Measure(f"{name}: defer, driver below", "jobs/s", None, against=_BELOW)
          for name in single_defers.ALL if single_defers.is_over_another(name)),
        *(Measure(f"{name}: defer to body, p50", "ms", at_most(2), against="insert + claim, p50")
          for name in of_workers),
    )  # fmt: skip

    def run(self, bench: Bench) -> Round:
        """Measure each connector, one right after the other."""
        count = bench.scale.of(DRAINED, at_least=200)
        limit = limit_rate(bench, count=count)
        samples = {}
        for name in self.of_workers:
            rate = drain_rate(bench, count=count, connector=name, concurrency=CONCURRENCY)
            samples[f"{name}: drain"] = Sample(rate, limit)
            samples[f"{name}: defer to body, p50"] = self._latency(bench, name)
        samples |= self._defers(bench)
        return samples

    def _latency(self, bench: Bench, name: str) -> Sample:
        count = bench.scale.of(TOLD, at_least=20)
        bench.say(f"{count} jobs, one at a time, with {name}")
        ours, limit = [], []
        with (
            bench.server.empty_database() as dsn,
            limits.table(dsn) as cursor,
            bench.server.database() as database,
            idle_worker(database, connector=name) as worker,
            procrastinate.App(
                connector=procrastinate.Psycopg2Connector(dsn=database.dsn)
            ).open() as app,
        ):
            tell = app.configure_task("tell")
            for number in range(count):
                time.sleep(0.007)
                limit.append(limits.insert_and_claim(cursor) * 1e3)
                began = time.monotonic()
                tell.defer(n=number)
                ours.append((worker.hear("began")["began"] - began) * 1e3)
        return Sample(quantile(ours, 0.5), quantile(limit, 0.5))

    def _defers(self, bench: Bench) -> dict[str, Sample]:
        count = bench.scale.of(DEFERRED, at_least=single_defers.BLOCK)
        samples: dict[str, Sample] = {}
        with bench.server.empty_database() as dsn, limits.table(dsn):
            for name in single_defers.ALL:
                bench.say(f"{count:,} inserts and defers in turns with {name}")
                with bench.server.database() as database:
                    found = single_defers.measured(name, dsn, database.dsn, count)
                names = (f"{name}: defer", f"{name}: defer, driver below")
                samples |= dict(zip(names, found, strict=False))
        return samples
