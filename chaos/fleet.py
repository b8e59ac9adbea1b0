"""The workers: operating system processes that run the command line, as a user's would.

A `Post` says how a worker runs; a `Worker` is one process of it. A worker that has ended is
followed by another one. A worker that is told to stop must exit with 0 within `exit_may_take`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from chaos.census import Census, Member
from chaos.connectors import OF_WORKERS
from chaos.guard import ROOT, Guard
from chaos.records import Complaint

YOUNG = 8.0  # seconds in which a start may fail because the database is away
PAUSE = 0.5  # seconds until a worker that has ended is followed by another one


@dataclass(frozen=True, slots=True)
class Post:
    """How a worker runs."""

    name: str
    route: str  # how it reaches the database
    dsn: str
    options: tuple[str, ...] = ()
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    slow_import: float = 0.0  # seconds

    def command(self) -> list[str]:
        """Return the command line."""
        several = ["--processes", str(self.processes)] if self.processes > 1 else []
        program = [sys.executable, "-m", "procrastinate", "--app", "chaos.app.app"]
        return [*program, "worker", "--name", self.name, *several, *self.options]


@dataclass(slots=True)
class Worker:
    """One process of a post, which may be the parent of several."""

    post: Post
    process: subprocess.Popen[bytes]
    log: Path
    started_at: datetime
    told_at: float | None = None  # monotonic, once it was told to stop
    harmed: bool = False  # a fault has ended it, so that its exit code says nothing

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid


class Fleet:
    """Keeps a worker on each post, from any thread."""

    def __init__(self, ledger: str, logs: Path, guard: Guard, census: Census) -> None:
        self._ledger = ledger
        self._logs = logs
        self._guard = guard
        self.census = census
        self._lock = threading.RLock()
        self._posts: dict[str, Post] = {}
        self._workers: dict[str, Worker] = {}
        self._leaving: list[Worker] = []
        self._again_at: dict[str, float] = {}
        self.started = 0
        self.complaints: list[Complaint] = []
        self.plant = ""
        self.connector = OF_WORKERS[0]
        #: Seconds from SIGTERM on. Endings cannot be written while the server is away.
        self.exit_may_take = 90.0
        #: Whether the database was in trouble since a moment.
        self.troubled: Callable[[datetime], bool] = lambda since: False

    # --- Starting ---

    def man(self, posts: Sequence[Post]) -> None:
        """Begin to keep workers on these posts."""
        with self._lock:
            for post in posts:
                self._posts[post.name] = post
                self.launch(post)

    def launch(self, post: Post, *, at_its_post: bool = True) -> Worker:
        """Start a worker; one that is not at its post has no successor."""
        with self._lock:
            self.started += 1
            log = self._logs / f"worker-{self.started:04}-{post.name}.log"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")},
            **post.environment,
            "CHAOS_DSN": post.dsn,
            "CHAOS_LEDGER": self._ledger,
            "CHAOS_SLOW_IMPORT": str(post.slow_import),
            "CHAOS_CONNECTOR": self.connector,
            "CHAOS_PLANT": self.plant,
        }
        started_at = datetime.now(UTC)
        with log.open("wb") as output:
            process = subprocess.Popen(
                post.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        self._guard.watch(process.pid)
        worker = Worker(post, process, log, started_at)
        self.census.expect(process.pid, post.route)
        if at_its_post:
            with self._lock:
                self._workers[post.name] = worker
        return worker

    # --- Who is there ---

    def workers(self) -> list[Worker]:
        """Return the workers at their posts."""
        with self._lock:
            return [each for each in self._workers.values() if each.process.poll() is None]

    def members(self, worker: Worker) -> list[Member]:
        """Return the processes of a worker that run jobs, or have run some."""
        return self.census.family(worker.pid, worker.started_at)

    def worker_of(self, member: Member) -> Worker | None:
        """Return the worker at its post that a process is, or a child of; None if it has ended."""
        found = (each for each in self.workers() if each.pid in (member.pid, member.parent))
        return next(found, None)

    # --- Ending ---

    def harm(self, member: Member) -> None:
        """Note that a fault is about to end a process."""
        with self._lock:
            for worker in [*self._workers.values(), *self._leaving]:
                if worker.pid in (member.pid, member.parent):
                    worker.harmed = worker.harmed or worker.pid == member.pid

    def tell_to_stop(self, worker: Worker) -> None:
        """Send SIGTERM; the exit code is looked at by `keep_going`."""
        with self._lock:
            if self._workers.get(worker.post.name) is worker:
                del self._workers[worker.post.name]
                self._again_at[worker.post.name] = time.monotonic() + PAUSE
            if worker.told_at is None:
                worker.told_at = time.monotonic()
                self._leaving.append(worker)
        with contextlib.suppress(ProcessLookupError):
            worker.process.terminate()

    def keep_going(self) -> None:
        """Start those who are missing, and judge those who have ended."""
        with self._lock:
            for name, worker in list(self._workers.items()):
                if worker.process.poll() is not None:
                    del self._workers[name]
                    self._again_at[name] = time.monotonic() + PAUSE
                    self._judge_end(worker)
            for name, at in list(self._again_at.items()):
                if time.monotonic() >= at:
                    del self._again_at[name]
                    self.launch(self._posts[name])
            self._reap()

    def _judge_end(self, worker: Worker) -> None:
        """Complain of a worker that ended although no fault made it end."""
        if not self._may_fail(worker):
            self._complain("ended by itself", worker)

    def _reap(self) -> None:
        for worker in list(self._leaving):
            assert worker.told_at is not None
            late = time.monotonic() > worker.told_at + self.exit_may_take
            if worker.process.poll() is None and not late:
                continue
            self._leaving.remove(worker)
            if worker.process.poll() is None:
                self._complain("hung", worker)
                worker.process.kill()
                worker.process.wait()
            elif worker.process.returncode != 0 and not self._may_fail(worker):
                self._complain("exit code", worker)

    def _may_fail(self, worker: Worker) -> bool:
        who = (worker.pid, worker.started_at)
        if worker.harmed or self.census.was_nasty(*who):
            return True
        return self.troubled(worker.started_at) and not self.census.has_run(*who)

    def _complain(self, rule: str, worker: Worker) -> None:
        told = "told to stop" if worker.told_at else "not told to stop"
        code = worker.process.poll()
        self.complaints.append(Complaint(rule, f"{worker.log.name}: {told}, exit code {code}"))

    def is_gone(self, worker: Worker) -> bool:
        """Return whether a worker that was told to stop has been judged."""
        with self._lock:
            return worker not in self._leaving

    def stop_all(self) -> None:
        """Tell all workers to stop, and wait for their ends."""
        with self._lock:
            self._posts.clear()
            self._again_at.clear()
            for worker in list(self._workers.values()):
                if worker.process.poll() is None:
                    self.tell_to_stop(worker)
        while self._leaving:
            with self._lock:
                self._reap()
            time.sleep(0.05)
