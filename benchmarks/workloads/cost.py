"""W13: what a job costs in statements, commits, write-ahead log and CPU time."""

from __future__ import annotations

import procrastinate
from benchmarks.databases import Database
from benchmarks.measures import Kind, Measure, Sample, at_most
from benchmarks.workers import drained, idle_worker, seconds_until_finished
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.defer import BATCH, noop_of
from benchmarks.workloads.drain import CONCURRENCY, JOBS


class Cost(Workload):
    key = "W13"
    title = "statements, commits and WAL per job, concurrency 100"
    short = "cost"
    limit = "none: amounts"
    timed = (
        "nothing: statements are counted on the worker's way to aiopg, commits by pg_stat_database,"
        f" WAL by its insert position, from batch_defer (in calls of {BATCH:,}) to the last finish"
    )
    measures = (
        Measure("statements per job", "", at_most(0.05), Kind.AMOUNT),
        Measure("commits per job", "", at_most(0.05), Kind.AMOUNT),
        Measure("WAL per job", "bytes", at_most(1_200), Kind.AMOUNT),
        Measure("worker's CPU per job", "µs", None, Kind.AMOUNT),
    )
    most_rounds = 3

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        statements, commits, cpu_us = self._worker(bench, count)
        return {
            "statements per job": Sample(statements / count),
            "commits per job": Sample(commits / count),
            "WAL per job": Sample(self._wal(bench, count) / count),
            "worker's CPU per job": Sample(cpu_us / count),
        }

    def _worker(self, bench: Bench, count: int) -> tuple[int, int, float]:
        """Return the statements and commits of a worker's whole life, and its CPU microseconds."""
        bench.say(f"counting what a worker sends for {count:,} jobs")
        with bench.server.database() as database:
            with idle_worker(
                database, report_at=count, concurrency=CONCURRENCY, traced=True
            ) as worker:
                ids = database.fill(count)
                database.analyze()
                before = _commits(database) - database.sent
                drained(database, worker, ids)
                last = worker.stop()
            # The server adds up a session's commits when it ends; those of ours are not counted.
            commits = _commits(database) - database.sent - before
            return len(last["statements"]), commits, last["cpu_seconds"] * 1e6

    def _wal(self, bench: Bench, count: int) -> int:
        bench.say(f"counting the WAL of {count:,} jobs")
        with bench.server.database() as database:
            database.run("checkpoint")
            before = _wal_position(database)
            with (
                idle_worker(database, report_at=count, concurrency=CONCURRENCY) as worker,
                procrastinate.App(
                    connector=procrastinate.Psycopg2Connector(dsn=database.dsn)
                ).open() as app,
            ):
                task = noop_of(app)
                ids: list[int] = []
                for first in range(0, count, BATCH):
                    numbers = range(first, min(first + BATCH, count))
                    ids += task.batch_defer(*({"n": n} for n in numbers))
                # They wake it by themselves, from the first batch on.
                worker.hear("ran")
                seconds_until_finished(database, range(min(ids), max(ids) + 1))
            return _wal_position(database) - before


def _commits(database: Database) -> int:
    """Return the commits in this database, once they have reached the statistics."""
    flush = (
        "pg_stat_force_next_flush" if _version(database) >= 150_000 else "pg_stat_clear_snapshot"
    )
    database.run(f"select {flush}()")
    commits: int = database.ask(
        "select xact_commit from pg_stat_database where datname = current_database()"
    )
    return commits


def _version(database: Database) -> int:
    return int(database.ask("show server_version_num"))


def _wal_position(database: Database) -> int:
    position: int = database.ask("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
    return position
