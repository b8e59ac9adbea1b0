"""Workers in processes of their own, and faults for them, by interfaces that have not changed.

These tests use the app, SQL, signals and a TCP proxy, and no module of the worker. So they can be
run against an older version, which shows that they fail there.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn
from silence import SilentProxy

import procrastinate

APP = Path(__file__).with_name("fault_app.py")
OPTIONS = {
    "update_heartbeat_interval": 0.5,
    "stalled_worker_timeout": 3.0,
    "fetch_job_polling_interval": 0.2,
    "abort_job_polling_interval": 0.5,
}
Query = Callable[..., list[tuple[Any, ...]]]


class Worker:
    """A process that works, and what it logs."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def ends_within(self, seconds: float) -> int | None:
        """Tell it to stop. Return its exit code; None if it goes on for that long."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None


class Place:
    """A database, its workers, and what can be seen of them."""

    stalled = OPTIONS["stalled_worker_timeout"]  # seconds

    def __init__(self, dsn: str, folder: Path, query: Query) -> None:
        self.dsn, self._folder, self.query = dsn, folder, query
        self.workers: dict[str, Worker] = {}
        query(
            "create table runs (job_id bigint, pid int, at timestamptz default clock_timestamp())"
        )
        query("create table struck (number int, name text)")

    def start(self, name: str, dsn: str | None = None, **options: Any) -> Worker:
        """Start a worker, and wait until it is registered."""
        given = json.dumps(OPTIONS | {"name": name} | options)
        command = [sys.executable, str(APP), dsn or self.dsn, self.dsn, given]
        worker = Worker(command, self._folder / f"{len(self.workers)}.log")
        self.workers[name] = worker
        self.until(lambda: self.beat_age(name) is not None or worker.process.poll() is not None)
        return worker

    def beat_age(self, name: str) -> float | None:
        """How old a worker's last sign of life is, in seconds."""
        age = "extract(epoch from clock_timestamp() - last_heartbeat)::float8"
        rows = self.query(f"select {age} from procrastinate_workers where name = %s", name)
        return rows[0][0] if rows else None

    def status(self, job_id: int) -> str:
        rows = self.query("select status::text from procrastinate_jobs where id = %s", job_id)
        return str(rows[0][0])

    def attempts(self, job_id: int) -> int:
        rows = self.query("select attempts from procrastinate_jobs where id = %s", job_id)
        return int(rows[0][0])

    def runs(self, job_id: int) -> int:
        """How often a job of the task "noted" has begun."""
        return int(self.query("select count(*) from runs where job_id = %s", job_id)[0][0])

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.02)

    @contextlib.contextmanager
    def transaction(self, *statements: str) -> Iterator[Any]:
        """An open transaction of somebody else's, which is committed at the end."""
        connection = psycopg2.connect(self.dsn)
        try:
            with connection.cursor() as cursor:
                for each in statements:
                    cursor.execute(each)
            yield connection
            connection.commit()
        finally:
            connection.close()

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """No session of the database lives on, and there is no new one."""
        name = parse_dsn(self.dsn)["dbname"]
        connection = psycopg2.connect(self.dsn, dbname="postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'alter database "{name}" allow_connections false')
            try:
                cursor.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
                    " and application_name <> 'test'",
                    (name,),
                )
                yield
            finally:
                cursor.execute(f'alter database "{name}" allow_connections true')
                connection.close()


@pytest.fixture
def place(dsn: str, tmp_path: Path, query: Query) -> Iterator[Place]:
    found = Place(dsn, tmp_path, query)
    yield found
    for worker in found.workers.values():
        worker.thaw()
        worker.process.kill()
        worker.process.wait()


@pytest.fixture
def defer(sync_app: procrastinate.App) -> Callable[..., int]:
    """Defer a job of a task of `fault_app`, and return its id."""

    def run(task: str, *, queue: str = "default", **arguments: Any) -> int:
        return sync_app.configure_task(task, queue=queue).defer(**arguments)

    return run


@pytest.fixture
def proxy(dsn: str) -> Iterator[SilentProxy]:
    with SilentProxy(dsn) as found:
        yield found
