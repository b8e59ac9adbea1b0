"""``procrastinate exporter``, and ``/metrics`` of workers, as programs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import procrastinate

SamplesOf = Callable[[Any], Mapping[str, float]]

SHOP = """
import os, time
import procrastinate

connector = procrastinate.AiopgConnector(dsn=os.environ["DSN"]) if "DSN" in os.environ else "memory"
app = procrastinate.App(connector=connector)

@app.task(name="work", queue="a", retry=1)
def work(fails=False):
    if fails:
        raise ValueError
"""


class Program:
    """A program that runs, and what it has logged."""

    def __init__(self, folder: Path, *args: str, **env: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "procrastinate", "--app=shop.app", *args],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder), **env},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            self.lines.extend(stream)

    def found(self, pattern: str, times: int = 1) -> list[str]:
        """Return what the groups of a pattern match in the log, once it does as often."""
        found: list[str] = []

        def enough() -> bool:
            found[:] = re.findall(pattern, "".join(list(self.lines)))
            return len(found) >= times

        until(enough, lambda: "".join(self.lines))
        return found

    def ended(self) -> int:
        code = self.process.wait(60)
        self._reader.join(60)
        return code


def until(condition: Callable[[], object], describe: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    (tmp_path / "shop.py").write_text(SHOP)
    started: list[Program] = []

    def start(*args: str, **env: str) -> Program:
        started.append(Program(tmp_path, *args, **env))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
        program.ended()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def test_the_exporter_answers_until_it_is_told_to_stop(
    start: Callable[..., Program], samples_of: SamplesOf
) -> None:
    exporter = start("exporter", "--port", "0")
    (url,) = exporter.found(r"procrastinate\.exporter: answering HTTP requests on (http://\S+)")
    assert samples_of(get(f"{url}/metrics")) == {
        "procrastinate_up{}": 1,
        "procrastinate_workers{}": 0,
    }
    assert get(f"{url}/healthz") == "ok\n"
    exporter.process.send_signal(signal.SIGTERM)
    assert exporter.ended() == 0


def test_an_exporter_on_a_port_that_is_taken_says_so(start: Callable[..., Program]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        exporter = start("exporter", "--port", port)
        assert exporter.ended() == 1
    assert [line for line in exporter.lines if "error:" in line] == [
        f"error: cannot listen on port {port} of 127.0.0.1: Address already in use\n"
    ]


def test_the_dashboard_is_printed_without_an_app(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "procrastinate", "exporter", "--grafana"],
        capture_output=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["title"] == "procrastinate"


def test_no_counter_of_several_workers_falls_and_the_sums_are_what_was_written(
    start: Callable[..., Program], procrastinate_dsn: str, samples_of: SamplesOf
) -> None:
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=procrastinate_dsn))
    with app.open():
        app.schema_manager.apply_schema()
        supervisor = start(
            "worker", "--processes=2", "--http-port=0", "--log-jobs=none", DSN=procrastinate_dsn
        )
        (url,) = supervisor.found(r"HTTP requests on (http://\S+)")
        supervisor.found("worker .* starts", times=2)
        seen: dict[str, float] = {}

        def scraped() -> Mapping[str, float]:
            samples = samples_of(get(f"{url}/metrics"))
            counters = {
                name: value
                for name, value in samples.items()
                if re.search(r"_(total|count|sum|bucket)\{", name)
            }
            fallen = {name for name in seen if counters.get(name, -1.0) < seen[name]}
            assert not fallen
            seen.update(counters)
            return samples

        def processed() -> dict[str, float]:
            samples = scraped()
            return {
                outcome: samples.get(
                    f"procrastinate_jobs_processed_total{{outcome={outcome},queue=a,task=work}}", 0
                )
                for outcome in ("succeeded", "failed", "retried")
            }

        work = app.configure_task("work", queue="a")
        work.batch_defer(*[{"fails": n % 10 == 0} for n in range(200)])
        expected = {"succeeded": 180.0, "failed": 20.0, "retried": 20.0}
        until(lambda: processed() == expected, lambda: str(seen))
        slots = scraped()["procrastinate_worker_slots{}"]
        assert slots == 2
        (pid,) = supervisor.found(r"worker process 1 of 2 has pid (\d+)")
        os.kill(int(pid), signal.SIGKILL)
        supervisor.found("worker process 1 was killed by SIGKILL")
        assert processed() == expected
        supervisor.found("worker .* starts", times=3)
        work.batch_defer(*[{}] * 100)
        until(lambda: processed()["succeeded"] == 280, lambda: str(seen))
        written = app.job_manager.list_queues(queue="a")[0]
        assert (written.succeeded, written.failed) == (280, 20)
        supervisor.process.send_signal(signal.SIGTERM)
        assert supervisor.ended() == 0
