"""Starting worker processes, and hearing what they say.

A drain is timed as a user would see it, and not by what the worker says about itself: the jobs are
there and the worker is idle, connected and listening; the clock starts before the notification is
sent that wakes it, and stops when a look into the table finds that no job is left unfinished.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.databases import Database

ROOT = Path(__file__).parent.parent  # where -m finds this package
PATIENCE = 120.0  # seconds without a sign of life until a workload is given up
SETTLES = 0.3  # seconds: after its last job a worker looks once more, later where cores are busy
POLL = 0.002  # seconds between looks for the end of a drain
_NEVER = 86_400.0  # seconds: workers start when they are woken, and not when they happen to look


class WorkerFailed(Exception):
    """A worker process did not do what a workload needs."""


class Process:
    """A program of this package that takes its options as JSON, and says what it does in lines of
    JSON.

    A ``quiet`` one's log goes nowhere.
    """

    def __init__(self, program: str, *, quiet: bool = False, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", program, json.dumps(options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            cwd=ROOT,
        )
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._messages.put(json.loads(line))
        self._messages.put(None)

    def hear(self, key: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return the next message that has this key; others are dropped. Raises WorkerFailed."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise WorkerFailed(f"no {key!r} from the process in {timeout:g} s") from None
            if message is None:
                raise WorkerFailed(f"the process ended, with exit code {self._process.wait()}")
            if key in message:
                return message

    def kill(self) -> None:
        """End the process if it still runs; for a workload that has failed."""
        self._process.kill()
        self._process.wait()


class WorkerProcess(Process):
    """One worker; see ``benchmarks.worker`` for its options and what it says.

    A quiet one is for jobs that fail as they should.
    """

    def __init__(self, dsn: str, *, quiet: bool = False, **options: Any) -> None:
        options = {"dsn": dsn, "fetch_job_polling_interval": _NEVER, **options}
        self.spawned = time.monotonic()
        super().__init__("benchmarks.worker", quiet=quiet, **options)

    def stop(self) -> dict[str, Any]:
        """End the worker gracefully and return its last message."""
        self._process.terminate()
        last = self.hear("ended")
        self._process.wait()
        return last


def let_look_at_schedule(database: Database) -> None:
    """Let workers look at the schedule now: then they do not for half a minute."""
    database.run("select pg_notify('procrastinate_schedule', '')")
    time.sleep(0.1)


@contextmanager
def idle_worker(database: Database, **options: Any) -> Iterator[WorkerProcess]:
    """A worker that is connected and listening, and has run one job already."""
    with idle_workers(database, 1, **options) as (worker,):
        yield worker


@contextmanager
def idle_workers(
    database: Database, count: int, **options: Any
) -> Iterator[Sequence[WorkerProcess]]:
    """Several of them."""
    workers = [
        WorkerProcess(database.dsn, name=f"bench-{number}", **options) for number in range(count)
    ]
    try:
        until(database, "select count(*) from pg_stat_activity where datname = current_database()"
               " and state = 'idle' and query ilike 'listen %%'", count)  # fmt: skip
        for _ in workers:
            database.fill(1, task="warm_up")
            database.wake()
            until(
                database, "select count(*) from procrastinate_jobs where status <> 'succeeded'", 0
            )
        time.sleep(SETTLES)
        yield workers
    finally:
        for worker in workers:
            worker.kill()


def until(database: Database, statement: str, value: int) -> None:
    """Return once a statement gives this value. Raises WorkerFailed if it never does."""
    deadline = time.monotonic() + PATIENCE
    while database.ask(statement) != value:
        if time.monotonic() > deadline:
            raise WorkerFailed(f"waited {PATIENCE:g} s without getting {value} from: {statement}")
        time.sleep(POLL)


def drained(database: Database, worker: WorkerProcess, ids: range) -> float:
    """Wake an idle worker and return the seconds until the last of these jobs is finished.

    The worker's ``report_at`` must be the number of jobs. Raises WorkerFailed if it did not wait.
    """
    if len(ids) != _unfinished(database, ids, "'todo'"):
        raise WorkerFailed("the worker found jobs before it was woken")
    began = time.monotonic()
    database.wake()
    worker.hear("ran")
    return seconds_until_finished(database, ids) - began


def seconds_until_finished(database: Database, ids: range) -> float:
    """Return the monotonic moment at which the last of these jobs is seen to be finished."""
    tail = range(max(ids.start, ids.stop - 1_000), ids.stop)
    deadline = time.monotonic() + PATIENCE
    while True:
        if not _unfinished(database, tail):  # quick to ask; most often the last ones end last
            seen = time.monotonic()
            if not _unfinished(database, ids):
                return seen
        if time.monotonic() > deadline:
            raise WorkerFailed(f"{_unfinished(database, ids)} jobs are not finished")
        time.sleep(POLL)


def _unfinished(database: Database, ids: range, statuses: str = "'todo', 'doing'") -> int:
    count: int = database.ask(
        "select count(*) from procrastinate_jobs"
        f" where id between %s and %s and status::text in ({statuses})",
        ids.start,
        ids.stop - 1,
    )
    return count
