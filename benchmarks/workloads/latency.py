"""W6 and W11: from the call to the task's body, and from a job's time to its start."""

from __future__ import annotations

import random
import time

import procrastinate
from benchmarks import limits
from benchmarks.measures import Kind, Measure, Sample, at_most, quantile
from benchmarks.workers import idle_worker
from benchmarks.workload import Bench, Round, Workload

JOBS = 500
PAUSE = 0.01  # seconds at most between two jobs, so that the worker is idle again
SCHEDULED = 200
WINDOW = 20.0  # seconds
LEAD = 0.5  # seconds between deferring the scheduled jobs and the earliest one's time


class Latency(Workload):
    key = "W6"
    title = "idle worker: defer called to body entered"
    short = "defer to body"
    limit = "plain SQL, one insert and one claim, each with its commit"
    timed = (
        "each job alone, from before task.defer() in one process to the body's first line in"
        " another; one insert and one claim of the limit before each job"
    )
    measures = (
        Measure("p50", "ms", at_most(2), against="insert + claim, p50"),
        Measure("p99", "ms", at_most(4), against="insert + claim, p99"),
    )

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=20)
        bench.say(f"{count} jobs, one at a time")
        ours, limit = [], []
        with (
            bench.server.empty_database() as dsn,
            limits.table(dsn) as cursor,
            bench.server.database() as database,
            idle_worker(database) as worker,
            procrastinate.App(
                connector=procrastinate.Psycopg2Connector(dsn=database.dsn)
            ).open() as app,
        ):
            tell = app.configure_task("tell")
            for number in range(count):
                time.sleep(random.uniform(PAUSE / 2, PAUSE))
                limit.append(limits.insert_and_claim(cursor) * 1e3)
                began = time.monotonic()
                tell.defer(n=number)
                ours.append((worker.hear("began")["began"] - began) * 1e3)
        return {
            name: Sample(quantile(ours, share), quantile(limit, share))
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }


class Schedule(Workload):
    key = "W11"
    title = "a scheduled job's start after its time"
    short = "scheduled start"
    limit = "the job's time itself"
    timed = "from scheduled_at to the body's first line, on one machine's clock"
    measures = (
        Measure("p50", "ms", None, Kind.AMOUNT),
        Measure("p99", "ms", at_most(50), Kind.AMOUNT),
    )

    def run(self, bench: Bench) -> Round:
        count, seconds = bench.scale.of(SCHEDULED, at_least=10), WINDOW * bench.scale.factor
        bench.say(f"{count} jobs scheduled at random within {seconds:.1f} s")
        late = []
        with bench.server.database() as database, idle_worker(database) as worker:
            now = time.time()
            due = [now + LEAD + random.uniform(0, seconds) for _ in range(count)]
            database.run(
                "insert into procrastinate_jobs (task_name, queue_name, args, scheduled_at, hold)"
                " select 'tell', 'default', jsonb_build_object('n', place - 1), to_timestamp(at),"
                " 'schedule' from unnest(%s::float8[]) with ordinality as due(at, place)",
                due,
            )
            database.run("select pg_notify('procrastinate_schedule', 'default')")
            for _ in range(count):
                message = worker.hear("began")
                late.append((message["clock"] - due[message["n"]]) * 1e3)
        return {"p50": Sample(quantile(late, 0.5)), "p99": Sample(quantile(late, 0.99))}
