"""W17: what idle workers cost the server."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.databases import Database
from benchmarks.measures import Kind, Measure, Sample, at_most
from benchmarks.workers import idle_workers
from benchmarks.workload import Bench, Round, Workload

WORKERS = 20
WINDOW = 30.0  # seconds
LOOK_EVERY = 1.0  # seconds, so that little is missed of a backend that ends
SETTLED_AFTER = 5.0  # seconds after the last worker's first job
POLLING_INTERVAL = 5.0  # seconds, a worker's default


class ServerIsElsewhere(Exception):
    """The server's processes cannot be seen from here."""


class IdleWorkers(Workload):
    key = "W17"
    title = f"{WORKERS} idle workers on one database"
    short = "idle workers"
    limit = "the same server without them, in the seconds before"
    timed = (
        "the CPU time of all of the server's processes, per second: while the workers have nothing"
        " to do, less what it was before they were started"
    )
    measures = (
        Measure("server's CPU per second", "ms", at_most(10), Kind.AMOUNT),
        Measure("commits per second", "", None, Kind.AMOUNT),
    )
    most_rounds = 3

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(WORKERS, at_least=2)
        window = max(2.0, WINDOW * bench.scale.factor)
        with bench.server.database() as database:
            bench.say("the server without workers")
            without = used_in(database, window)
            bench.say(f"starting {count} workers")
            with idle_workers(database, count, fetch_job_polling_interval=POLLING_INTERVAL):
                time.sleep(min(SETTLED_AFTER, window))
                bench.say(f"{count} idle workers")
                used = used_in(database, window)
        return {
            "server's CPU per second": Sample(max(0.0, used.cpu - without.cpu) / window * 1e3),
            "commits per second": Sample(max(0, used.commits - without.commits) / window),
        }


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds of the whole server, and commits in one database."""

    cpu: float
    commits: int


def used_in(database: Database, window: float) -> Used:
    """Return what is used within a window of seconds."""
    commits = _commits(database)
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    deadline = time.monotonic() + window
    for pid in _processes_of(database):
        first[pid] = last[pid] = _cpu_seconds(pid)
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(LOOK_EVERY, left))
        for pid in _processes_of(database):
            last[pid] = max(last.get(pid, 0.0), _cpu_seconds(pid))
    cpu = sum(seconds - first.get(pid, 0.0) for pid, seconds in last.items())
    return Used(cpu, _commits(database) - commits)


def _commits(database: Database) -> int:
    commits: int = database.ask(
        "select xact_commit from pg_stat_database where datname = current_database()"
    )
    return commits


def _processes_of(database: Database) -> list[int]:
    """The ids of the server's processes but for the one that answers this."""
    pids = [
        row[0]
        for row in database.rows("select pid from pg_stat_activity where pid <> pg_backend_pid()")
    ]
    if not any(_is_postgres(pid) for pid in pids):
        raise ServerIsElsewhere("W17 measures a server's processes: they must be on this machine")
    return pids


def _is_postgres(pid: int) -> bool:
    try:
        return "postgres" in psutil.Process(pid).name()
    except psutil.Error:
        return False


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process; 0 when it has ended.

    Linux tells it in nanoseconds. Elsewhere, and there where it does not, it comes in hundredths
    of a second, which a process that sleeps most of the time hardly fills.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        pass
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
