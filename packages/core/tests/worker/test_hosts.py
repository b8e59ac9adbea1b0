"""Programs with a worker in them end as they would without it, and their worker with them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import procrastinate

HOST_APP = Path(__file__).with_name("host_app.py")
PATIENCE = 60.0  # seconds

INT, TERM, KILL_WORKER = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1


class Host:
    """One program, its output in files."""

    def __init__(self, folder: Path, dsn: str, host: str, worker: str) -> None:
        self._paths = [folder / f"{host}-{worker}.{stream}" for stream in ("out", "err")]
        with self._paths[0].open("w") as out, self._paths[1].open("w") as err:
            command = [sys.executable, str(HOST_APP), dsn, host, worker]
            self.process = subprocess.Popen(command, stdout=out, stderr=err)

    @property
    def output(self) -> list[str]:
        return self._paths[0].read_text().split()

    @property
    def log(self) -> str:
        return self._paths[1].read_text()

    def shows(self, what: Callable[[], object]) -> None:
        """Wait until something is seen."""
        deadline = time.monotonic() + PATIENCE
        while not what():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def ends_on(self, number: signal.Signals) -> int:
        """Send a signal once the program is ready, and return its exit code."""
        self.shows(lambda: "ready" in self.output)
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def host(dsn: str, tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Start a program with a worker in it."""
    started: list[Host] = []

    def start(host: str, worker: str) -> Host:
        started.append(Host(tmp_path, dsn, host, worker))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def workers(query: Callable[..., list[Any]]) -> list[Any]:
    return query("select name from procrastinate_workers")


@pytest.mark.parametrize("number", [INT, TERM])
@pytest.mark.parametrize(
    ("name", "worker"),
    [
        ("plain", "restart"),
        ("handling", "restart"),
        ("handling", "task"),
        ("uvicorn", "restart"),
        ("uvicorn", "task"),
    ],
)
def test_a_signal_ends_the_program_as_without_a_worker(
    host: Callable[..., Host],
    query: Callable[..., list[Any]],
    name: str,
    worker: str,
    number: signal.Signals,
) -> None:
    without, with_worker = host(name, "none"), host(name, worker)
    with_worker.shows(lambda: "starts: queues" in with_worker.log)
    assert with_worker.ends_on(number) == without.ends_on(number)
    assert with_worker.output == without.output
    # A signal that nothing handles kills the program. Other workers then recover its jobs.
    is_killed = (name, number) == ("plain", TERM)
    assert workers(query) == [("guest",)] * is_killed


@pytest.mark.parametrize("number", [INT, TERM])
def test_in_a_program_that_handles_no_signal_the_first_one_stops_a_worker_that_is_a_task(
    host: Callable[..., Host], query: Callable[..., list[Any]], number: signal.Signals
) -> None:
    without, with_worker = host("plain", "none"), host("plain", "task")
    with_worker.shows(lambda: "starts: queues" in with_worker.log)
    with_worker.process.send_signal(number)
    with_worker.shows(lambda: "worker guest has stopped" in with_worker.log)
    assert workers(query) == []
    with_worker.shows(lambda: without.output == ["ready"])
    # The signal is the program's again once the worker's task has ended, just after that line.
    deadline = time.monotonic() + PATIENCE
    while with_worker.process.poll() is None and time.monotonic() < deadline:
        with_worker.process.send_signal(number)
        time.sleep(0.05)
    assert with_worker.process.wait() == without.ends_on(number)


def test_a_worker_that_dies_can_end_its_server(
    host: Callable[..., Host], query: Callable[..., list[Any]]
) -> None:
    server = host("uvicorn", "terminate")
    code = server.ends_on(KILL_WORKER)
    assert code == host("uvicorn", "none").ends_on(TERM)
    assert server.output == ["ready", "left"]
    assert "worker guest has ended: MemoryError: planned" in server.log
    assert workers(query) == []


def test_a_worker_that_dies_can_end_the_task_that_entered(
    host: Callable[..., Host], query: Callable[..., list[Any]]
) -> None:
    program = host("plain", "cancel")
    assert program.ends_on(KILL_WORKER) == 1
    last = program.log.splitlines()[-1]
    assert last.startswith("procrastinate.errors.WorkerFailed: worker guest has ended: MemoryError")
    assert workers(query) == []


def test_a_worker_that_dies_is_started_again_under_its_server(
    host: Callable[..., Host], query: Callable[..., list[Any]], sync_app: procrastinate.App
) -> None:
    server = host("uvicorn", "restart")
    server.shows(lambda: "ready" in server.output)
    server.process.send_signal(KILL_WORKER)
    server.shows(lambda: "runs again" in server.log)
    sync_app.configure_task("hello").defer()
    server.shows(lambda: "hello" in server.output)
    assert server.ends_on(TERM) == -TERM
    assert server.output == ["ready", "hello", "left"]
    assert workers(query) == []


@pytest.mark.parametrize("name", ["plain", "handling", "uvicorn"])
def test_a_program_whose_worker_cannot_start_does_not_start(
    procrastinate_dsn: str, host: Callable[..., Host], query: Callable[..., Any], name: str
) -> None:
    query("drop table procrastinate_workers cascade")
    program = host(name, "restart")
    assert program.process.wait(PATIENCE) not in (0, None)
    assert program.output == []
    assert "SchemaError: " in program.log
    assert "procrastinate_workers" in program.log
