"""A process that a job forks never goes on as a second worker, and does the first one no harm."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

APP = Path(__file__).with_name("forking_app.py")
CODES = {
    "returns": 0,
    "exits": 7,
    "raises": 1,
    "ends by SIGTERM": -signal.SIGTERM,
    "subprocess": 7,
    "subprocess with preexec": 7,
    "system": 7,
    "multiprocessing fork": 7,
    "multiprocessing spawn": 7,
    "multiprocessing terminated": -signal.SIGTERM,
    "pool": 7,
}
OWN = {does: CODES[does] for does in ("returns", "exits", "raises")}
# Around the job a child comes to the worker's code, whatever it does.
AROUND = {"returns": 1, "exits": 1, "multiprocessing fork": 7}
CALLED = ("strategy", "observer", "claim observer", "tick observer")
ON_LOOP = {**CODES, "awaits": 1, "awaits long": 1, "awaits in a task of its own": 1}


@pytest.mark.parametrize(
    ("kind", "does", "code"),
    [("thread", *each) for each in CODES.items()]
    + [("async", *each) for each in ON_LOOP.items()]
    + [(kind, *each) for kind in ("to_thread", "executor", "pool") for each in OWN.items()]
    + [(kind, *each) for kind in ("middleware", "plain middleware") for each in OWN.items()]
    + [(kind, *each) for kind in CALLED for each in AROUND.items()]
    + [(f"own {kind}", *each) for kind in CALLED for each in AROUND.items()],
)
def test_a_forked_child_leaves_and_the_worker_works_on(kind: str, does: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, str(APP), kind, does], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.terminate()
        rest, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()

    assert sorted(lines) == [f"child {code}\n", "innocent ran\n"]
    assert rest == "worker stopped\n"  # and nothing by a child
    assert process.returncode == 0
