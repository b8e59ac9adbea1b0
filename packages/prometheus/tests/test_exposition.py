"""Counting in several processes, which are killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from procrastinate_prometheus import exposition

SamplesOf = Callable[[Any], Mapping[str, float]]

CHILD = """
import sys
from procrastinate_prometheus import exposition

exposition.count_in(sys.argv[1], int(sys.argv[2]))

import procrastinate
from procrastinate.observing import events
from procrastinate.testing import InMemoryConnector

observer = exposition.observer()
app = procrastinate.App(connector=InMemoryConnector(), observers=[observer])

@app.task(name="t", queue="q")
def work(): ...

with app.open():
    work.batch_defer(*[{}] * int(sys.argv[3]))
    app.run_worker(wait=False)
observer.on_busy(events.Busy("w", 1, 2, 3))
print("counted", flush=True)
sys.stdin.read()
"""


class Children:
    def __init__(self, folder: Path, samples_of: SamplesOf) -> None:
        self.folder = folder
        self._samples_of = samples_of
        self.running: list[subprocess.Popen[str]] = []

    def start(self, number: int, jobs: int) -> subprocess.Popen[str]:
        """Start a process that has run some jobs when this returns."""
        command = [sys.executable, "-c", CHILD, str(self.folder), str(number), str(jobs)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.running.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "counted\n"
        return child

    def kill(self, child: subprocess.Popen[str], number: int) -> None:
        child.kill()
        child.wait()
        exposition.ended(str(self.folder), number)

    def shown(self) -> tuple[float, float, float]:
        """Return how many jobs are counted as succeeded, busy slots, and all slots."""
        content_type, text = exposition.text_of_children(str(self.folder), "")
        assert content_type.startswith("text/plain")
        samples = self._samples_of(text.decode())
        labels = "{outcome=succeeded,queue=q,task=t}"
        return (
            samples[f"procrastinate_jobs_processed_total{labels}"],
            samples.get("procrastinate_worker_slots_busy{}", 0),
            samples.get("procrastinate_worker_slots{}", 0),
        )


@pytest.fixture
def children(tmp_path: Path, samples_of: SamplesOf) -> Any:
    children = Children(tmp_path, samples_of)
    yield children
    for child in children.running:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()


def test_no_counter_falls_when_a_process_is_killed_and_its_files_are_used_again(
    children: Children,
) -> None:
    first = children.start(1, 5)
    children.start(2, 7)
    assert children.shown() == (12, 4, 6)
    files = sorted(os.listdir(children.folder))
    children.kill(first, 1)
    assert children.shown() == (12, 2, 3)
    again = children.start(1, 100)
    assert children.shown() == (112, 4, 6)
    assert sorted(os.listdir(children.folder)) == files
    again.send_signal(signal.SIGTERM)
    children.kill(again, 1)
    assert children.shown() == (112, 2, 3)


def test_this_process_shows_the_registry_of_prometheus_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    exposition.observer()
    content_type, text = exposition.text("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert b"procrastinate_worker_slots" in text


def test_a_folder_of_the_program_s_own_is_shown(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    children.start(3, 4)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(children.folder))
    assert b'outcome="succeeded",queue="q",task="t"} 4.0' in exposition.text("")[1]
