"""Another version of procrastinate, round by round in turn with this one.

Rules

1. Both are measured by this folder's workloads, each in a process of its own, on one server. Only
   the interpreter differs, and what is installed there.
2. A pair is a round of the other version and one of this one, right after it. What counts is the
   ratio of ours: a limit that a workload has is measured too, and not used.
3. The target is that nothing got slower by more than `MAY_LOSE`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import report
from benchmarks.databases import Server
from benchmarks.measures import Measure, Sample, at_least, at_most
from benchmarks.options import Options
from benchmarks.workers import ROOT
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads import WORKLOADS

MAY_LOSE = 0.03
ENVIRONMENT = Path(sys.prefix) / "against"
REQUIREMENTS = ("psutil>=5.9", "rich>=13")
THE_OTHER = "the other version"


class NoOtherVersion(Exception):
    """The other version cannot be used; says why."""


class Compared(Workload):
    """A workload whose limit is the other version."""

    limit = THE_OTHER

    def __init__(self, workload: Workload, command: Sequence[str], python: str) -> None:
        self.key = workload.key  # type: ignore[misc]
        self.title = workload.title  # type: ignore[misc]
        self.short = workload.short  # type: ignore[misc]
        self.timed = workload.timed  # type: ignore[misc]
        self.most_rounds = workload.most_rounds  # type: ignore[misc]
        self.measures = tuple(_compared(each) for each in workload.measures)  # type: ignore[misc]
        self._command = command
        self._python = python

    def run(self, bench: Bench) -> Round:
        bench.say(THE_OTHER)
        theirs = self._measured_by(self._python)
        bench.say("this version")
        ours = self._measured_by(sys.executable)
        return {
            name: Sample(value, theirs[name])
            for name, value in ours.items()
            if theirs.get(name)  # nothing can be said of a ratio to nothing
        }

    def _measured_by(self, python: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "found.json")
            done = subprocess.run(
                [python, "-m", "benchmarks", *self._command, "--json", str(path)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd=ROOT,
            )
            if done.returncode != 0:
                raise NoOtherVersion(f"{python} failed: {(done.stderr or done.stdout).strip()}")
            (workload,) = json.loads(path.read_text(encoding="utf-8"))["workloads"]
        return {measure["name"]: measure["ours"] for measure in workload["measures"]}


def compared(options: Options, server: Server, console: Console) -> list[Workload]:
    """Return the workloads that were asked for, to be compared. Raises `NoOtherVersion`."""
    assert options.against is not None
    with report.going_on(console, "installing the other version"):
        python = python_of(options.against)
    size = [] if options.scale.name == "full" else [f"--{options.scale.name}"]
    command = ["--repeat", "1", "--no-chart", "--dsn", server.dsn, *size, "--only"]
    return [Compared(WORKLOADS[key], [*command, key], python) for key in options.only]


def python_of(path: Path) -> str:
    """Return the interpreter that has the other version: given, or made from a folder of wheels."""
    if path.is_file():
        return str(path)
    wheels = sorted(map(str, path.glob("*.whl")))
    if not wheels:
        raise NoOtherVersion(f"{path} is neither a Python nor a folder with wheels")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    python = ENVIRONMENT / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    uv = shutil.which("uv")
    if uv is None:
        venv.create(ENVIRONMENT, with_pip=True)
        _install([str(python), "-m", "pip", "install", "--quiet"], wheels)
    else:
        _install([uv, "venv", "--quiet", "--python", sys.executable], [str(ENVIRONMENT)])
        _install([uv, "pip", "install", "--quiet", "--python", str(python)], wheels)
    return str(python)


def _install(command: Sequence[str], what: Sequence[str]) -> None:
    requirements = REQUIREMENTS if "install" in command else ()
    done = subprocess.run([*command, *what, *requirements], capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise NoOtherVersion(f"the other version cannot be installed: {last}")


def _compared(measure: Measure) -> Measure:
    more_is_better = (
        measure.target.at_least if measure.target is not None else measure.unit == "jobs/s"
    )
    target = at_least(1 - MAY_LOSE) if more_is_better else at_most(1 / (1 - MAY_LOSE))
    return Measure(measure.name, measure.unit, target, against=THE_OTHER)
