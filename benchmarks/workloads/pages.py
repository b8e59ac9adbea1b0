"""W23: what lists and pages cost on a database after months of use, each with its worst filter."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2

import procrastinate
from benchmarks.databases import Database
from benchmarks.history import LOCK, NEVER, RARE_TASK, history_of, write
from benchmarks.measures import Kind, Measure, Sample, at_most, quantile
from benchmarks.workload import Bench, Round, Workload

JOBS = 5_000_000
LOOKS = 30  # of which the slowest but one is the 95th percentile
MOST_ROWS = 20_000
MOST_MILLISECONDS = 100


@dataclass(frozen=True, slots=True)
class Look:
    """An app, a caller's connection for its calls, and what some of them are about."""

    app: procrastinate.App
    connection: Any
    #: Where a search for what no job has went on, after it had used up its budget.
    cursor: str | None = None
    last_in_line: int = 0

    def search(self, **filters: Any) -> Any:
        return self.app.job_manager.search_jobs(connection=self.connection, **filters)


def _since(**ago: float) -> datetime:
    return datetime.now(UTC) - timedelta(**ago)


#: Each with the filter that it has most to do with.
LOOKS_AT: Mapping[str, Callable[[Look], Any]] = {
    "newest jobs": lambda look: look.search(),
    "failed jobs": lambda look: look.search(state="failed"),
    "an error text that no job has": lambda look: look.search(state="failed", error=NEVER),
    "the same in any state": lambda look: look.search(error=NEVER),
    "a task with no job": lambda look: look.search(task=NEVER),
    "a task's one job, the oldest": lambda look: look.search(task=RARE_TASK, state="failed"),
    "a queue with no job": lambda look: look.search(queue=NEVER),
    "a lock's succeeded jobs": lambda look: look.search(state="succeeded", lock=LOCK),
    "a lock with 50,000 in line": lambda look: look.search(lock=LOCK),
    "who waits in that line": lambda look: look.search(state="behind-a-lock", lock=LOCK),
    "nobody in that line": lambda look: look.search(state="behind-a-lock", task=NEVER),
    "scheduled, of a task with none": lambda look: look.search(state="scheduled", task=NEVER),
    "ready, of a task with none": lambda look: look.search(state="ready", task=NEVER),
    "an hour a month ago": lambda look: look.search(
        since=_since(days=29, hours=1), until=_since(days=29)
    ),
    "failed within an hour a month ago": lambda look: look.search(
        state="failed", since=_since(days=29, hours=1), until=_since(days=29)
    ),
    "the page after a search that gave up": lambda look: look.search(
        state="failed", error=NEVER, cursor=look.cursor
    ),
    "queues": lambda look: look.app.queue_manager.list_queues(connection=look.connection),
    "failures": lambda look: look.app.job_manager.list_failures(connection=look.connection),
    "failures of a month ago": lambda look: look.app.job_manager.list_failures(
        since=_since(days=29, hours=1), until=_since(days=29), connection=look.connection
    ),
    "why the last in line waits": lambda look: look.app.job_manager.why_waiting(
        look.last_in_line, connection=look.connection
    ),
    "workers": lambda look: look.app.job_manager.list_workers(connection=look.connection),
    "throughput of a day": lambda look: look.app.job_manager.throughput(
        since=_since(days=1), step=timedelta(minutes=10), connection=look.connection
    ),
}


#: On connections of its own, the app sorts nothing for these (`settings: in_order` in their SQL). A
#: caller's connection, which tells here the rows that it reads, stays as it is set.
IN_ORDER = ("newest jobs", "queues", "failures", "failures of a month ago")


class Pages(Workload):
    key = "W23"
    title = "lists and pages over 5,000,000 jobs"
    short = "pages"
    limit = "none: times and rows count by themselves"
    timed = (
        f"each call on a connection of its own, {LOOKS} times: the 95th percentile in milliseconds,"
        " the objects that it returns included. Rows: the entries that it read in tables and"
        " indexes, at most, in all of the states below. First before the tables were ever"
        " analyzed, then analyzed, then with nothing in the memory of the server or the system"
    )
    measures = (
        *(Measure(name, "ms", at_most(MOST_MILLISECONDS), Kind.AMOUNT) for name in LOOKS_AT),
        *(Measure(f"rows: {name}", "", at_most(MOST_ROWS), Kind.AMOUNT) for name in LOOKS_AT),
        Measure("never analyzed: the slowest", "ms", at_most(MOST_MILLISECONDS), Kind.AMOUNT),
        Measure("nothing in memory: the slowest", "ms", None, Kind.AMOUNT),
    )
    most_rounds = 1

    def run(self, bench: Bench) -> Round:
        jobs = bench.scale.of(JOBS, at_least=2_000)
        times = bench.scale.of(LOOKS, at_least=3)
        with bench.server.database() as database:
            for written in write(database, history_of(jobs)):
                bench.say(f"{written:,} ended jobs")
            bench.say("looking, before anything was analyzed")
            new = looked(database, times)
            database.run("vacuum (analyze) procrastinate_jobs")
            bench.say("looking")
            warm = looked(database, times)
            bench.say("looking, with nothing in memory")
            pages = bench.scale.of(FILLER)
            cold = {name: looked_cold(database, name, pages) for name in LOOKS_AT}
        slowest = max(found.milliseconds for found in new.values())
        return {
            **{name: Sample(found.milliseconds) for name, found in warm.items()},
            **{
                f"rows: {name}": Sample(max(each[name].rows for each in (new, warm, cold)))
                for name in LOOKS_AT
            },
            "never analyzed: the slowest": Sample(slowest),
            "nothing in memory: the slowest": Sample(
                max(found.milliseconds for found in cold.values())
            ),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What one look costs: the 95th percentile of its time, and the rows that it read at most."""

    milliseconds: float
    rows: int


def looked(database: Database, times: int) -> dict[str, Found]:
    """Return what each look costs, in turn."""
    with looking(database) as look:
        return {name: _cost_of(look, name, times) for name in LOOKS_AT}


def looked_cold(database: Database, name: str, pages: int) -> Found:
    """Return what a look costs with nothing in memory; see `forget`."""
    forget(database, pages)
    with looking(database) as look:
        return _cost_of(look, name, 1)


@contextmanager
def looking(database: Database) -> Iterator[Look]:
    """An open app, and a connection which tells the rows that it reads, all in one process."""
    connection = psycopg2.connect(
        database.dsn, options="-c max_parallel_workers_per_gather=0 -c statement_timeout=60000"
    )
    connector = procrastinate.Psycopg2Connector(dsn=database.dsn)
    try:
        with procrastinate.App(connector=connector).open() as app:
            look = Look(app, connection)
            cursor = look.search(state="failed", error=NEVER).cursor
            yield replace(look, cursor=cursor, last_in_line=_last_in_line(connection))
    finally:
        connection.close()


def _last_in_line(connection: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "select max(id) from procrastinate_jobs where lock = %s and status = 'todo'"
            " and hold is distinct from 'schedule' and hold = 'lock'",
            (LOCK,),
        )
        last: int = cursor.fetchone()[0]
        connection.rollback()
        return last


def _cost_of(look: Look, name: str, times: int) -> Found:
    took, rows = [], []
    for _ in range(times):
        if name in IN_ORDER:
            with look.connection.cursor() as cursor:
                cursor.execute("set local enable_sort = off")
        before = rows_read(look.connection)
        began = time.perf_counter()
        LOOKS_AT[name](look)
        took.append(time.perf_counter() - began)
        rows.append(rows_read(look.connection) - before)
        look.connection.rollback()
    return Found(quantile(took, 0.95) * 1e3, max(rows))


#: Rows of a table that were read one after the other, and entries of indexes that were found.
_READ = """
select coalesce(sum(pg_catalog.pg_stat_get_xact_tuples_returned(oid)), 0)::bigint
from pg_catalog.pg_class
where relkind in ('r', 'i', 'p') and relname like 'procrastinate%'
"""


def rows_read(connection: Any) -> int:
    """Return how many rows a session has read since some moment in its past."""
    with connection.cursor() as cursor:
        cursor.execute(_READ)
        read: int = cursor.fetchone()[0]
        return read


FILLER = 50_000  # pages of 8 kB, three times what the server keeps in memory
_FILLER = """
create table filler (text text);
alter table filler alter text set storage plain;
insert into filler select repeat('x', 7000) from generate_series(1, %(pages)s);
drop table filler
"""


def forget(database: Database, pages: int) -> None:
    """Let the server's memory be full of something else, and the system's without the table."""
    database.run_named(_FILLER, pages=pages)
    database.run("checkpoint")
    folder, number = database.row(
        "select current_setting('data_directory'), oid from pg_database"
        " where datname = current_database()"
    )
    for file in (Path(folder) / "base" / str(number)).iterdir():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
