"""W4 and W5: deferring, one by one and in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from psycopg2 import extensions

import procrastinate
from benchmarks import limits
from benchmarks.measures import Measure, Sample, at_least
from benchmarks.workload import Bench, Round, Workload

ONE_BY_ONE = 2_000
IN_BATCHES = 50_000
BATCH = 1_000
_INSERT = "insert and commit"
_UNNEST = f"unnest, {BATCH:,} rows in a statement"


@contextmanager
def deferring(bench: Bench, connector: str) -> Iterator[Any]:
    """A task of an app with this connector, open for synchronous use on a new database."""
    with bench.server.database() as database:
        dsn = url_of(database.dsn) if connector.startswith("SQLAlchemy") else database.dsn
        app = procrastinate.App(connector=getattr(procrastinate, connector)(dsn=dsn))
        with app.open():
            task = noop_of(app)
            task.defer(n=0)
            yield task


def url_of(dsn: str, driver: str = "psycopg2") -> str:
    """Return a DSN of libpq's in the form that SQLAlchemy reads."""
    parts = extensions.parse_dsn(dsn)
    name, user = parts.pop("dbname"), parts.pop("user", None)
    url = sqlalchemy.URL.create(f"postgresql+{driver}", username=user, database=name, query=parts)
    return url.render_as_string(hide_password=False)


def noop_of(app: procrastinate.App) -> Any:
    @app.task(name="noop")
    async def noop(n: int) -> None: ...

    return noop


class DeferOneByOne(Workload):
    key = "W4"
    title = "defer one by one"
    short = "defer"
    limit = "plain SQL, insert and commit, one by one"
    timed = "the loop of calls alone, on an open app; the limit right before each connector"
    measures = (
        Measure("Psycopg2", "jobs/s", at_least(0.85), against=_INSERT),
        Measure("SQLAlchemy", "jobs/s", at_least(0.6), against=_INSERT),
        Measure("Aiopg", "jobs/s", at_least(0.7), against=_INSERT),
    )

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(ONE_BY_ONE, at_least=50)
        samples = {}
        for name, connector in (
            ("Psycopg2", "Psycopg2Connector"),
            ("SQLAlchemy", "SQLAlchemyPsycopg2Connector"),
        ):
            limit = self._limit(bench, count)
            bench.say(f"{count:,} times task.defer() with {connector}")
            with deferring(bench, connector) as task:
                samples[name] = Sample(_rate(task, count), limit)
        limit = self._limit(bench, count)
        bench.say(f"{count:,} times await task.defer_async() with AiopgConnector")
        with bench.server.database() as database:
            samples["Aiopg"] = Sample(asyncio.run(_rate_async(database.dsn, count)), limit)
        return samples

    def _limit(self, bench: Bench, count: int) -> float:
        bench.say(f"limit: {count:,} inserts")
        with bench.server.empty_database() as dsn, limits.table(dsn) as cursor:
            return limits.insert_one_by_one(cursor, count)


def _rate(task: Any, count: int) -> float:
    began = time.perf_counter()
    for number in range(count):
        task.defer(n=number)
    return count / (time.perf_counter() - began)


async def _rate_async(dsn: str, count: int) -> float:
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))
    async with app.open_async():
        task = noop_of(app)
        await task.defer_async(n=0)
        began = time.perf_counter()
        for number in range(count):
            await task.defer_async(n=number)
        return count / (time.perf_counter() - began)


class BatchDefer(Workload):
    key = "W5"
    title = f"batch_defer in calls of {BATCH:,}"
    short = "batch_defer"
    limit = "plain SQL, unnest"
    timed = "the loop of calls alone, on an open app (Psycopg2Connector)"
    measures = (Measure("batch_defer", "jobs/s", at_least(0.5), against=_UNNEST),)

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(IN_BATCHES, at_least=BATCH)
        bench.say(f"limit: {count:,} rows by unnest")
        with bench.server.empty_database() as dsn, limits.table(dsn) as cursor:
            limit = limits.insert_in_bulk(cursor, count, BATCH)
        bench.say(f"batch_defer of {count:,} jobs")
        with deferring(bench, "Psycopg2Connector") as task:
            began = time.perf_counter()
            for first in range(0, count, BATCH):
                task.batch_defer(*({"n": n} for n in range(first, min(first + BATCH, count))))
            ours = count / (time.perf_counter() - began)
        return {"batch_defer": Sample(ours, limit)}
