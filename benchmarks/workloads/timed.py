"""W15: jobs that take time, beside a bare loop (or bare threads) of as many slots."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.lengths import mean_of, seconds_of
from benchmarks.measures import Measure, Sample, at_least
from benchmarks.workers import ROOT, drained, idle_worker
from benchmarks.workload import Bench, Round, Scale, Workload

SECONDS = 3.0  # that a line takes where no slot ever waits


@dataclass(frozen=True, slots=True)
class Line:
    """A number of slots, the lengths of the jobs, and the share of the bare loop to reach."""

    slots: int
    lengths: str
    target: float
    threads: bool = False

    @property
    def name(self) -> str:
        kind = ", threads" if self.threads else ""
        return f"{self.slots} x {self.lengths}{kind}"

    @property
    def is_even(self) -> bool:
        """Whether all jobs take equally long."""
        return len(set(seconds_of(self.lengths, 100))) == 1

    @property
    def against(self) -> str:
        return "bare threads" if self.threads else "bare loop"

    def count(self, scale: Scale) -> int:
        """How many jobs keep the slots busy for a while."""
        full = round(self.slots / mean_of(self.lengths) * SECONDS)
        return scale.of(full, at_least=2 * self.slots)


_ON_A_LOOP = (
    Line(1, "5ms", 0.97),
    Line(10, "1ms", 0.85),
    Line(10, "50ms", 0.97),
    Line(20, "5ms", 0.97),
    Line(100, "10ms", 0.97),
    Line(100, "100ms", 0.97),
    Line(20, "5ms,1/20:500ms", 0.97),
    Line(20, "exp:5ms", 0.97),
)
LINES = (
    *_ON_A_LOOP,
    *(Line(each.slots, each.lengths, 0.9, threads=True) for each in _ON_A_LOOP),
)


class Timed(Workload):
    key = "W15"
    title = "jobs that take time"
    short = "slots kept busy"
    limit = "as many coroutines (or threads) that sleep as long, without a queue or a database"
    timed = (
        "as W1; the bare loop before the worker is started, in a process of its own, from before"
        " its first job to after its last"
    )
    measures = tuple(
        Measure(line.name, "jobs/s", at_least(line.target), against=line.against) for line in LINES
    )

    def run(self, bench: Bench) -> Round:
        samples = {}
        for line in LINES:
            count = line.count(bench.scale)
            limit = count / bare_seconds(bench, line, count)
            samples[line.name] = Sample(count / our_seconds(bench, line, count), limit)
        return samples


def bare_seconds(bench: Bench, line: Line, count: int) -> float:
    """Return the seconds that a bare loop takes, with nothing else running."""
    bench.say(f"limit: {count:,} jobs, {line.name}")
    options = {
        "lengths": line.lengths,
        "slots": line.slots,
        "count": count,
        "threads": line.threads,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare", json.dumps(options)],
        check=True,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    seconds: float = json.loads(done.stdout)["seconds"]
    return seconds


def our_seconds(bench: Bench, line: Line, count: int) -> float:
    """Return the seconds that a worker takes."""
    bench.say(f"{count:,} jobs, {line.name}")
    with bench.server.database() as database, idle_worker(
        database, report_at=count, concurrency=line.slots, lengths=[line.lengths, count]
    ) as worker:  # fmt: skip
        ids = database.fill(count, task="sleep_sync" if line.threads else "sleep")
        database.analyze()
        return drained(database, worker, ids)
