"""W18: W1, W4 and W6 with each connector that runs workers, beside its own driver's plain SQL.

The drivers are imported when they are used: an older version that is compared has none of them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

import procrastinate
from benchmarks import limits
from benchmarks.measures import Measure, Sample, at_least, at_most, quantile
from benchmarks.workers import idle_worker
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.defer import noop_of
from benchmarks.workloads.drain import CONCURRENCY, ONE_STATEMENT, drain_rate, limit_rate

DRAINED, DEFERRED, TOLD = 30_000, 2_000, 200
_OWN = "insert and commit, same driver"
_INSERT = b"insert into jobs (args) values (%s::jsonb) returning id"


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
          for name in ("psycopg, sync", "psycopg, async", "asyncpg")),
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
        count = bench.scale.of(DEFERRED, at_least=50)
        bench.say(f"{count:,} inserts and defers with psycopg and asyncpg")
        with bench.server.empty_database() as dsn, limits.table(dsn):
            by_psycopg = _inserts(dsn, count)
            by_psycopg_async = asyncio.run(_inserts_async(dsn, count))
            by_asyncpg = asyncio.run(_inserts_by_asyncpg(dsn, count))
        with bench.server.database() as database:
            psycopg = procrastinate.PsycopgConnector(conninfo=database.dsn)
            asyncpg = procrastinate.AsyncpgConnector(**limits.for_asyncpg(database.dsn))
            ours, ours_async = asyncio.run(_defers(psycopg, count))
            ours_by_asyncpg = asyncio.run(_defers_async(asyncpg, count))
        return {
            "psycopg, sync: defer": Sample(ours, by_psycopg),
            "psycopg, async: defer": Sample(ours_async, by_psycopg_async),
            "asyncpg: defer": Sample(ours_by_asyncpg, by_asyncpg),
        }


def _inserts(dsn: str, count: int) -> float:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        began = time.perf_counter()
        for number in range(count):
            connection.execute(_INSERT, [f'{{"n": {number}}}']).fetchone()
        return count / (time.perf_counter() - began)


async def _inserts_async(dsn: str, count: int) -> float:
    import psycopg

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        began = time.perf_counter()
        for number in range(count):
            await (await connection.execute(_INSERT, [f'{{"n": {number}}}'])).fetchone()
        return count / (time.perf_counter() - began)


async def _inserts_by_asyncpg(dsn: str, count: int) -> float:
    import asyncpg

    connection = await asyncpg.connect(**limits.for_asyncpg(dsn))
    try:
        insert = "insert into jobs (args) values ($1::text::jsonb) returning id"
        began = time.perf_counter()
        for number in range(count):
            await connection.fetchval(insert, f'{{"n": {number}}}')
        return count / (time.perf_counter() - began)
    finally:
        await connection.close()


async def _defers(connector: Any, count: int) -> tuple[float, float]:
    app = procrastinate.App(connector=connector)
    async with app.open_async():
        task = noop_of(app)
        asynchronously = await _rate_async(task, count)
        synchronously = await asyncio.to_thread(_rate, task, count)
    return synchronously, asynchronously


async def _defers_async(connector: Any, count: int) -> float:
    app = procrastinate.App(connector=connector)
    async with app.open_async():
        return await _rate_async(noop_of(app), count)


async def _rate_async(task: Any, count: int) -> float:
    await task.defer_async(n=0)
    began = time.perf_counter()
    for number in range(count):
        await task.defer_async(n=number)
    return count / (time.perf_counter() - began)


def _rate(task: Any, count: int) -> float:
    task.defer(n=0)
    began = time.perf_counter()
    for number in range(count):
        task.defer(n=number)
    return count / (time.perf_counter() - began)
