"""``procrastinate demo`` as a command: its errors, its exit codes, and its end by signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from procrastinate import connectors, errors
from procrastinate_embedded.demo import place

Query = Callable[..., list[tuple[Any, ...]]]

COMMAND = [sys.executable, "-m", "procrastinate", "demo"]


def demo(*arguments: str | bytes, **environment: str) -> tuple[int, str, str]:
    """Run the command to its end; return its exit code, stdout and stderr."""
    ended = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
    )
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


def test_the_main_job_with_a_server_of_its_own(folder: Path) -> None:
    (folder / "a").write_text("1\n2\n")
    code, out, err = demo("--path", str(folder), PROCRASTINATE_DEMO_DSN="")
    assert (code, err) == (0, "")
    assert out.startswith("procrastinate ")
    assert "started for this demo" in out
    assert "4 bytes, 2 lines" in out
    assert out.endswith("Every file is done: 1 read.\n")


def test_the_dsn_may_come_from_the_environment_and_names_may_not_fit_the_output(
    procrastinate_dsn: str, folder: Path
) -> None:
    (folder / "grüß").symlink_to("nowhere")
    code, out, err = demo(
        *("--path", str(folder)),
        PROCRASTINATE_DEMO_DSN=procrastinate_dsn,
        PYTHONIOENCODING="ascii",
    )
    assert (code, err) == (0, "")
    assert "the server that was named" in out
    assert "gr\\xfc\\xdf" in out


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_path_that_is_no_folder_is_a_usage_error(folder: Path, name: str) -> None:
    (folder / "file").touch()
    code, out, err = demo("--path", str(folder / name))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert name in err


def test_a_server_that_does_not_answer_is_one_line(folder: Path) -> None:
    (folder / "a").touch()
    code, _, err = demo("--path", str(folder), "--dsn", "host=127.0.0.1 port=1 password=secret")
    assert (code, err.count("\n"), "secret" in err) == (1, 1, False)
    assert "cannot connect to PostgreSQL" in err


def test_missing_packages_are_all_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def not_installed(name: str) -> None:
        raise errors.ConnectorImportError(name)

    monkeypatch.setattr(connectors, "get", not_installed)
    monkeypatch.setattr(place, "find_spec", lambda name: None)
    with pytest.raises(errors.ConnectorNotInstalled) as raised:
        place.check_packages(dashboard=True)
    assert str(raised.value).endswith(
        "run `pip install procrastinate-aiopg 'procrastinate-dashboard[server]'`"
    )


@pytest.fixture
def at_work(procrastinate_dsn: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demo that takes a few seconds."""
    for number in range(3_000):
        (folder / f"{number:04}").write_bytes(b"x" * 10_000)
    process = subprocess.Popen(
        [*COMMAND, "--path", str(folder), "--dsn", procrastinate_dsn, "--concurrency", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.02)


def worker_of(process: subprocess.Popen[bytes], query: Query) -> psutil.Process:
    """Wait until the demo's worker is connected, and return it."""
    sessions = (
        "select 1 from pg_stat_activity"
        " where datname = current_database() and application_name like '%_worker_1'"
    )
    until(lambda: query(sessions))
    (worker,) = psutil.Process(process.pid).children()
    return worker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_leaves_nothing(
    at_work: subprocess.Popen[bytes], query: Query, number: signal.Signals
) -> None:
    worker = worker_of(at_work, query)
    at_work.send_signal(number)
    _, err = at_work.communicate(timeout=30)
    assert (at_work.returncode, err.strip()) == (130, b"error: interrupted")
    assert not worker.is_running()
    assert query("select nspname from pg_namespace where nspname like 'procrastinate_demo%'") == []


def test_the_worker_ends_when_the_demo_is_killed(
    at_work: subprocess.Popen[bytes], query: Query
) -> None:
    worker = worker_of(at_work, query)
    at_work.kill()
    worker.wait(20)
    assert not worker.is_running()


def test_the_dashboard_is_served_until_ctrl_c(procrastinate_dsn: str, folder: Path) -> None:
    (folder / "a").write_text("1\n")
    process = subprocess.Popen(
        [*COMMAND, "--path", str(folder), "--dsn", procrastinate_dsn, "--dashboard"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        said = ""
        while "until Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            said += line
        (address,) = re.findall(r"pages +(http://127\.0\.0\.1:[0-9]+/)", said)
        with urllib.request.urlopen(f"{address}jobs", timeout=60) as page:
            assert "demo:read_file" in page.read().decode()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.communicate()
