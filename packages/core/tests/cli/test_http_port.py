"""``procrastinate worker --http-port``: one worker, and several behind one port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name
from urllib.error import HTTPError

import pytest

from procrastinate.cli.children_port import PREFIX, ChildrenPort
from procrastinate.errors import ConfigurationError

WaitUntil = Callable[..., None]


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def url_of(running: Any) -> str:
    (line,) = running.wait_for("answering HTTP requests on")
    return str(line.rpartition(" ")[2])


def test_a_worker_answers_probes(program: Program, wait_until: WaitUntil) -> None:
    worker = program.start("worker", "--http-port", "0")
    url = url_of(worker)
    wait_until(lambda: get(f"{url}/readyz") == (200, "ok\n"))
    assert get(f"{url}/healthz") == (200, "ok\n")
    assert worker.stop() == 0


@pytest.mark.parametrize("more", [[], ["--processes", "2"]])
def test_a_port_that_is_taken_is_told_in_one_line(program: Program, more: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = program("worker", "--http-port", port, *more)
    assert done.returncode == 1
    assert f"error: cannot listen on port {port} of 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_several_workers_are_behind_one_port(
    program: Program, wait_until: WaitUntil, tmp_path: Path
) -> None:
    folders = tmp_path / "tmp"
    folders.mkdir()
    supervisor = program.start(
        "worker", "--processes", "2", "--http-port", "0", TMPDIR=str(folders)
    )
    url = url_of(supervisor)
    pid = int(supervisor.wait_for("worker process 1 of 2 has pid")[0].rpartition(" ")[2])
    wait_until(lambda: get(f"{url}/healthz") == (200, "ok\n"))  # they start
    wait_until(lambda: get(f"{url}/readyz") == (200, "ok\n"))
    assert len(list(folders.glob(f"{PREFIX}*"))) == 1

    os.kill(pid, signal.SIGSTOP)
    stopped = (503, "worker process 1: it does not answer\n")
    wait_until(lambda: get(f"{url}/healthz") == stopped)  # some time after the signal
    assert get(f"{url}/readyz") == stopped
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: get(f"{url}/healthz") == (200, "ok\n"))

    os.kill(pid, signal.SIGKILL)
    supervisor.wait_for("worker process 1 was killed by SIGKILL")
    wait_until(lambda: get(f"{url}/healthz") == (200, "ok\n"))  # it is started again anyway
    wait_until(lambda: get(f"{url}/readyz") == (200, "ok\n"))
    assert supervisor.stop() == 0
    assert list(folders.iterdir()) == []


# The common folder, without processes


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_supervisor_has_left_is_removed_by_the_next_one(folders: Path) -> None:
    left = folders / f"{PREFIX}left"
    left.mkdir()
    (left / "lock").touch()
    (left / "1.port").touch()
    alive = ChildrenPort("127.0.0.1", 0)
    other = folders / "other"
    other.mkdir()
    next_one = ChildrenPort("127.0.0.1", 0)
    assert sorted(folders.iterdir()) == sorted([Path(alive.folder), Path(next_one.folder), other])
    alive.close()
    next_one.close()
    assert list(folders.iterdir()) == [other]


def test_another_users_folder_is_left_alone(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = folders / f"{PREFIX}left"
    left.mkdir()
    (left / "lock").touch()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    port = ChildrenPort("127.0.0.1", 0)
    port.close()
    assert (left / "lock").exists()


def test_a_folder_that_is_being_made_is_left_alone(folders: Path) -> None:
    begun = folders / f"{PREFIX}begun"
    begun.mkdir()
    ChildrenPort("127.0.0.1", 0).close()
    assert list(folders.iterdir()) == [begun]


def test_without_a_port_no_folder_is_made(folders: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, contextlib.suppress(ConfigurationError):
        ChildrenPort("127.0.0.1", taken.getsockname()[1])
    assert list(folders.iterdir()) == []


def test_a_child_that_does_not_begin_is_unwell_after_a_while(folders: Path) -> None:
    now = 59.0

    class Child:
        number, started_at, runs, done = 7, 0.0, True, False

    port = ChildrenPort("127.0.0.1", 0, clock=lambda: now)
    url = port._port.url
    with port.answering([Child()]):
        assert get(f"{url}/healthz") == (200, "ok\n")
        assert get(f"{url}/readyz") == (503, "worker process 7: it starts\n")
        now = 61.0
        assert get(f"{url}/healthz") == (503, "worker process 7: it has not begun\n")
        Child.runs, Child.done = False, True
        assert get(f"{url}/readyz") == (200, "ok\n")
