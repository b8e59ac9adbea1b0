"""W8: jobs that share locks, and those that do not."""

from __future__ import annotations

import itertools
import time
from typing import Any

from benchmarks.databases import Database
from benchmarks.measures import Kind, Measure, Sample, at_least, at_most, quantile
from benchmarks.workers import WorkerFailed, WorkerProcess, idle_worker, seconds_until_finished
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY, drain_rate

JOBS = 10_000  # with locks, and as many without; also behind the hot lock
LOCKS = 10
HELD = 3  # seconds for which the worker polls; the hot lock is held for as long before, to park
POLLING = 0.05  # seconds between its polls
_LINE = "'lock ' || (n % {locks})"


class Locks(Workload):
    key = "W8"
    title = "jobs with locks among jobs without; one hot lock"
    short = "locks"
    limit = "the same number of jobs without locks, alone"
    timed = (
        "the unlocked jobs from before the NOTIFY until the last one's stored finished_at, while"
        " they stand between locked ones; an idle poll is the statement of a worker behind the"
        " hot lock"
    )
    measures = (
        Measure("unlocked", "jobs/s", at_least(0.6), against="unlocked alone"),
        Measure("unlocked, lines in batches", "jobs/s", at_least(0.9), against="unlocked alone"),
        Measure("out of order", "jobs", at_most(0), Kind.AMOUNT),
        Measure("locked", "jobs/s", None, Kind.AMOUNT),
        Measure("idle poll, slowest", "ms", at_most(5), Kind.AMOUNT),
        Measure("idle poll, p50", "ms", None, Kind.AMOUNT),
    )

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=50)
        alone = drain_rate(bench, count=count, concurrency=CONCURRENCY)
        unlocked, locked, wrong = self._mixed(bench, count)
        in_batches, _, wrong_too = self._mixed(bench, count, in_batches=True)
        polls = self._hot(bench, count)
        return {
            "unlocked": Sample(unlocked, alone),
            "unlocked, lines in batches": Sample(in_batches, alone),
            "out of order": Sample(wrong + wrong_too),
            "locked": Sample(locked),
            "idle poll, slowest": Sample(max(polls)),
            "idle poll, p50": Sample(quantile(polls, 0.5)),
        }

    def _mixed(
        self, bench: Bench, count: int, *, in_batches: bool = False
    ) -> tuple[float, float, int]:
        """Return the rates of unlocked and locked jobs, and how many were out of order."""
        bench.say(f"{count:,} jobs on {LOCKS} locks between {count:,} without")
        with bench.server.database() as database, idle_worker(
            database, report_at=2 * count, concurrency=CONCURRENCY
        ) as worker:  # fmt: skip
            ids = _fill_mixed(database, count, in_batches=in_batches)
            database.analyze()
            server_began = database.ask("select clock_timestamp()")
            began = time.monotonic()
            database.wake()
            worker.hear("ran")
            locked = count / (seconds_until_finished(database, ids) - began)
            last = database.ask(
                "select max(finished_at) from procrastinate_jobs where id between %s and %s"
                " and lock is null",
                ids.start,
                ids.stop - 1,
            )
            unlocked = count / (last - server_began).total_seconds()
            return unlocked, locked, out_of_order(worker.stop()["notes"])

    def _hot(self, bench: Bench, count: int) -> list[float]:
        """Return the milliseconds of each poll while a long line waits for one lock."""
        bench.say(f"polling beside one hot lock with {count:,} waiting")
        held = max(0.5, HELD * bench.scale.factor)
        with bench.server.database() as database, idle_worker(
            database, concurrency=CONCURRENCY, traced=True, fetch_job_polling_interval=POLLING
        ) as worker:  # fmt: skip
            database.run(
                "insert into procrastinate_jobs (task_name, queue_name, args, lock)"
                " values ('hold', 'default', jsonb_build_object('n', %s), 'hot')",
                2 * held,
            )
            database.fill(count, columns=", lock", values=", 'hot'")
            database.analyze()
            database.wake()
            parked = _moment_when_parked(database, count)
            time.sleep(held)
            ended = database.ask(
                "select finished_at from procrastinate_jobs where lock = 'hot' order by id limit 1"
            )
            if ended is not None:
                raise WorkerFailed("the hot lock was given up before the polls were over")
            return _polls(worker, parked, time.monotonic())


def _fill_mixed(database: Database, count: int, *, in_batches: bool) -> range:
    """Insert the jobs as if they had come one by one, or in batches of 1,000.

    Of a batch, all but the first job of each line are parked.
    """
    first = database.ask(
        "with inserted as ("
        "  insert into procrastinate_jobs (task_name, queue_name, args, lock, hold)"
        "  select case when odd then 'in_line' else 'noop' end, 'default',"
        "    case when odd then jsonb_build_object('n', n, 'line', line)"
        "      else jsonb_build_object('n', n) end,"
        "    case when odd then line end,"
        "    case when odd and %s and n / 2 %% 500 >= %s then 'lock'::procrastinate_hold end"
        "  from generate_series(1, %s) as n,"
        "    lateral (select n %% 2 = 1 as odd, 'lock ' || (n / 2) %% %s as line) as job"
        "  returning id"
        ") select min(id) from inserted",
        in_batches,
        LOCKS,
        2 * count,
        LOCKS,
    )
    return range(first, first + 2 * count)


def out_of_order(notes: list[list[Any]]) -> int:
    """Return how many bodies did not begin and end alone in their line, or not in its order."""
    lines: dict[str, list[tuple[int, str]]] = {}
    for line, number, what in notes:
        lines.setdefault(line, []).append((number, what))
    wrong = 0
    for line_notes in lines.values():
        expected = [
            (number, what)
            for number in sorted({number for number, _ in line_notes})
            for what in ("begins", "ends")
        ]
        wrong += sum(one != other for one, other in itertools.zip_longest(line_notes, expected))
    return wrong


def _moment_when_parked(database: Database, count: int) -> float:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready = database.ask(
            "select count(*) from procrastinate_jobs where status = 'todo' and hold is null"
        )
        if ready == 0:
            return time.monotonic()
        time.sleep(0.01)
    raise WorkerFailed(f"{count} jobs with one lock were not parked in 60 s")


def _polls(worker: WorkerProcess, since: float, until: float) -> list[float]:
    statements = worker.stop()["statements"]
    polls = [
        milliseconds
        for name, milliseconds, moment in statements
        if since < moment < until
        and (name.startswith("claim_") or name in ("ready_queues", "any_ready"))
    ]
    if not polls:
        raise WorkerFailed("the worker did not poll beside the hot lock")
    return polls
