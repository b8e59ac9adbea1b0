"""Jobs, workers, and everything that can happen to them: ``python storm.py [SECONDS] [SEED]``.

Several worker processes, half of them behind a proxy that misbehaves, work on jobs with locks,
queueing locks, retries, priorities and schedules. For SECONDS, workers are killed, told to stop
and suspended, connections cut, sessions terminated, the network frozen and the server crashed.
Then the storm ends, the workers finish, and the stored jobs and runs are held against the
invariants. Prints the seed and what happened; exits with 1 when something did that must not.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import invariants
import psycopg2
from proxy import Proxy

import procrastinate
from procrastinate_embedded import server

APP = Path(__file__).with_name("chaos_app.py")
WORKERS = 3
QUEUES = ("red", "green", "blue")
CALM_MAY_TAKE = 60.0  # seconds for the last jobs to end once the storm is over
EXIT_MAY_TAKE = 40.0  # seconds for a worker told to stop
JOBS_A_SECOND = 60  # deferred while the storm lasts, besides as many as for 10 s before it

#: What happens, and how often.
WEIGHTS = {
    "kill": 3,
    "stop": 3,
    "suspend": 1,
    "terminate_sessions": 4,
    "cut": 4,
    "cut_answers": 6,
    "cut_requests": 4,
    "freeze": 2,
    "crash_server": 1,
}


class Storm:
    """One run of the chaos on a server of its own."""

    def __init__(self, dsn: str, proxy: Proxy, logs: Path, seed: int) -> None:
        self._dsn = dsn
        self._proxy = proxy
        self._logs = logs
        self._random = random.Random(seed)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._suspended: list[tuple[float, subprocess.Popen[bytes]]] = []
        self._stopping: list[tuple[float, subprocess.Popen[bytes]]] = []
        self._started = 0
        self._log_of: dict[int, Path] = {}
        self.crashes: list[datetime] = []
        self.happened: Counter[str] = Counter()
        self.problems: list[str] = []

    # The database, through whatever happens to it

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        def execute() -> list[tuple[Any, ...]]:
            connection = psycopg2.connect(self._dsn)
            try:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(sql)
                    return cursor.fetchall() if cursor.description else []
            finally:
                connection.close()

        return _insisting(execute)

    # Jobs

    def defer(self, app: procrastinate.App, count: int) -> None:
        for _ in range(count):
            draw = self._random
            options: dict[str, Any] = {
                "queue": draw.choice(QUEUES),
                "priority": draw.choice((0, 0, 0, 1, -1, 5)),
                "lock": draw.choice((None, None, *(f"lock {n}" for n in range(12)))),
            }
            if draw.random() < 0.08:
                options["queueing_lock"] = f"twin {draw.randrange(6)}"
            if draw.random() < 0.15:
                options["schedule_in"] = {"seconds": draw.uniform(0, 4)}
            job = app.configure_task(draw.choice(("in_a_thread", "on_the_loop")), **options)
            seconds = 0.3 if draw.random() < 0.03 else draw.uniform(0, 0.02)
            failing = draw.choice((0, 0, 0, 0, 0, 0, 1, 2)) if draw.random() < 0.98 else 99
            with suppress(procrastinate.AlreadyEnqueued):
                _insisting(lambda: job.defer(seconds=seconds, failing=failing))  # noqa: B023

    # Workers

    def start_worker(self) -> None:
        draw = self._random
        dsn = self._dsn
        if self._started % 2:
            database = urlsplit(self._dsn).path
            dsn = f"postgresql://postgres@127.0.0.1:{self._proxy.port}{database}"
        options = {
            "concurrency": draw.choice((1, 4, 20)),
            "update_heartbeat_interval": 0.3,
            "stalled_worker_timeout": 2.0,
            "fetch_job_polling_interval": 1.0,
            "shutdown_graceful_timeout": draw.choice((None, 0.05, 0.0)),
            "listen_notify": draw.random() < 0.8,
        }
        log = self._logs / f"worker-{self._started:03}.log"
        with log.open("wb") as output:
            command = [sys.executable, str(APP), dsn, self._dsn, json.dumps(options)]
            worker = subprocess.Popen(command, stdout=output, stderr=output)
        self._workers.append(worker)
        self._log_of[worker.pid] = log
        self._started += 1

    def keep_workers_going(self) -> None:
        """Start workers for those that have gone, and wake those that slept long enough."""
        for until, worker in list(self._suspended):
            if time.monotonic() >= until:
                worker.send_signal(signal.SIGCONT)
                self._suspended.remove((until, worker))
        for worker in list(self._workers):
            if worker.poll() is not None:
                self._workers.remove(worker)
                if self._had_started(worker):
                    self._complain(worker, "ended by itself")
        self._reap()
        while len(self._workers) < WORKERS:
            self.start_worker()

    def _reap(self) -> None:
        for deadline, worker in list(self._stopping):
            if worker.poll() is None and time.monotonic() < deadline:
                continue
            self._stopping.remove((deadline, worker))
            if worker.poll() is None or (worker.returncode and self._had_started(worker)):
                self._complain(worker, "was told to stop")
                worker.kill()
                worker.wait()

    def _had_started(self, worker: subprocess.Popen[bytes]) -> bool:
        """Whether it works: one that starts without a database, or is told to stop, may fail."""
        return b" starts: " in self._log_of[worker.pid].read_bytes()

    def _complain(self, worker: subprocess.Popen[bytes], what: str) -> None:
        log = self._log_of[worker.pid]
        self.problems.append(f"the worker of {log.name} {what}: exit code {worker.poll()}")

    def stop_all(self) -> None:
        for worker in list(self._workers):
            self._tell_to_stop(worker)
        while self._stopping:
            self._reap()
            time.sleep(0.02)

    def kill_all(self) -> None:
        for worker in [*self._workers, *(each for _, each in self._stopping)]:
            worker.kill()
            worker.wait()

    def _tell_to_stop(self, worker: subprocess.Popen[bytes]) -> None:
        self._workers.remove(worker)
        worker.send_signal(signal.SIGCONT)
        worker.terminate()
        self._stopping.append((time.monotonic() + EXIT_MAY_TAKE, worker))

    # Trouble

    def make_trouble(self) -> None:
        what = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        self.happened[what] += 1
        getattr(self, f"_{what}")()

    def _kill(self) -> None:
        worker = self._random.choice(self._workers)
        self._workers.remove(worker)
        self._suspended = [each for each in self._suspended if each[1] is not worker]
        worker.kill()
        worker.wait()

    def _stop(self) -> None:
        worker = self._random.choice(self._workers)
        self._suspended = [each for each in self._suspended if each[1] is not worker]
        self._tell_to_stop(worker)
        if self._random.random() < 0.3:
            worker.terminate()

    def _suspend(self) -> None:
        worker = self._random.choice(self._workers)
        worker.send_signal(signal.SIGSTOP)
        self._suspended.append((time.monotonic() + self._random.uniform(0.2, 4), worker))

    def _terminate_sessions(self) -> None:
        self.query(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
            f" and random() < {self._random.choice((0.2, 1.0))}"
        )

    def _cut(self) -> None:
        self._proxy.cut(self._random.choice((0.3, 1.0)))

    def _cut_answers(self) -> None:
        self._proxy.cut_next_answer(self._random.choice((0.3, 1.0)))

    def _cut_requests(self) -> None:
        self._proxy.cut_next_request(self._random.choice((0.3, 1.0)))

    def _freeze(self) -> None:
        self._proxy.freeze(self._random.uniform(0.1, 3))

    def _crash_server(self) -> None:
        """Kill a session's process: the server ends all the others and recovers from its log."""
        pids = self.query("select pid from pg_stat_activity where backend_type = 'client backend'")
        self.crashes.append(datetime.now(UTC))
        with suppress(ProcessLookupError):
            os.kill(self._random.choice(pids)[0], signal.SIGKILL)
        self.query("select 1")
        self.crashes.append(datetime.now(UTC))

    # What the workers say

    def look_into_logs(self) -> None:
        for log in self._log_of.values():
            if b"exception was never retrieved" in log.read_bytes():
                self.problems.append(f"an exception got lost in the worker of {log}")

    # All of it

    def run(self, seconds: float) -> None:
        connector = procrastinate.Psycopg2Connector(dsn=self._dsn)
        with procrastinate.App(connector=connector).open() as app:
            app.schema_manager.apply_schema()
            self.query(invariants.CREATE_RUNS)
            self.defer(app, 10 * JOBS_A_SECOND)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self.keep_workers_going()
                self.defer(app, JOBS_A_SECOND // 4)
                self.make_trouble()
                time.sleep(self._random.uniform(0.05, 0.45))
        self._calm_down()
        self.stop_all()

    def _calm_down(self) -> None:
        for _, worker in self._suspended:
            worker.send_signal(signal.SIGCONT)
        self._suspended.clear()
        deadline = time.monotonic() + CALM_MAY_TAKE
        waiting = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
        while self.query(waiting)[0][0]:
            if time.monotonic() > deadline:
                self.problems.append("the jobs did not all end")
                break
            self.keep_workers_going()
            time.sleep(0.1)


def _insisting(action: Callable[[], Any]) -> Any:
    """Do something with the database until it works."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return action()
        except (psycopg2.OperationalError, procrastinate.ConnectorException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def storm(seconds: float, seed: int, logs: Path) -> int:
    settings = {"fsync": False, "max_connections": 200}
    with server(settings=settings) as running:
        host = parse_qs(urlsplit(running.dsn).query)["host"][0]

        def connect() -> Any:
            if host.startswith("/"):
                return asyncio.open_unix_connection(f"{host}/.s.PGSQL.5432")
            return asyncio.open_connection(host, urlsplit(running.dsn).port)

        with Proxy(connect) as proxy:
            dsn = running.create_database("chaos")
            it = Storm(dsn, proxy, logs, seed)
            try:
                it.run(seconds)
            finally:
                it.kill_all()
            it.look_into_logs()
            jobs = invariants.read(it.query, it.crashes)
            problems = it.problems + invariants.violations(jobs, it.query)
    runs = sum(len(job.runs) for job in jobs)
    undisturbed = sum(job.undisturbed for job in jobs)
    print(f"{len(jobs)} jobs ({undisturbed} undisturbed), {runs} runs, {it._started} workers")
    print(dict(Counter(job.status for job in jobs)), dict(it.happened))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**6)
    logs = Path(tempfile.mkdtemp(prefix="procrastinate-chaos-"))
    print(f"seed {seed}, {seconds:g} seconds, logs of the workers in {logs}", flush=True)
    code = storm(seconds, seed, logs)
    if code == 0:
        shutil.rmtree(logs)
    return code


if __name__ == "__main__":
    sys.exit(main())
