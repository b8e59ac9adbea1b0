"""W19: jobs that all have a lock."""

from __future__ import annotations

import functools

from benchmarks import limits
from benchmarks.measures import Measure, Sample, at_least
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY, drain_rate, limit_rate

JOBS = 20_000
#: How many different locks there are, and which share of W1 is asked for.
TARGETS = {20_000: 0.5, 1_000: 0.5, 100: 0.25}
FEW = 10  # locks: with so few, all that can be done at once is the next job of each
WHOLE_FEW = 0.5  # of the two-statement loop
W1 = "W1, as many jobs"
TWO_STATEMENTS = f"two statements per batch of {FEW}"
STATES = {"analyzed": True, "never analyzed": False}
BATCHES = "in batches"
#: Numbers of locks that are measured again with jobs which came in batches of 1,000.
IN_BATCHES = (100, FEW)
BATCH = 1_000


class Lines(Workload):
    key = "W19"
    title = "drain jobs that all have a lock"
    short = "lines"
    limit = f"W1 of the same size; for {FEW} locks plain SQL, {TWO_STATEMENTS}"
    timed = "as W1; the jobs' locks come in turn, with the server's default settings (JIT is on)"
    measures = tuple(
        Measure(
            f"{locks:,} locks, {state}",
            "jobs/s",
            at_least(TARGETS.get(locks, WHOLE_FEW)),
            against=W1 if locks in TARGETS else TWO_STATEMENTS,
        )
        for state, numbers in (
            *((state, (*TARGETS, FEW)) for state in STATES),
            (BATCHES, IN_BATCHES),
        )
        for locks in numbers
    )

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        found = {}
        for state, analyze in STATES.items():
            whole = drain_rate(bench, count=count, concurrency=CONCURRENCY, analyze=analyze)
            for locks in TARGETS:
                found[f"{locks:,} locks, {state}"] = Sample(
                    self._rate(bench, count, locks, analyze), whole
                )
            loop = functools.partial(limits.drain_by_two_statements, batch=FEW)
            limit = limit_rate(bench, count=count, loop=loop)
            found[f"{FEW} locks, {state}"] = Sample(self._rate(bench, count, FEW, analyze), limit)
            if analyze:
                for locks in IN_BATCHES:
                    rate = self._rate(bench, count, locks, analyze, in_batches=True)
                    found[f"{locks} locks, {BATCHES}"] = Sample(
                        rate, whole if locks in TARGETS else limit
                    )
        return found

    @staticmethod
    def _rate(
        bench: Bench, count: int, locks: int, analyze: bool, *, in_batches: bool = False
    ) -> float:
        """Return the jobs/s of jobs that came one by one, or in batches.

        Of a batch, all but the first job of each line are parked.
        """
        bench.say(f"{count:,} jobs on {locks:,} locks")
        hold = f"case when (n - 1) %% {BATCH} >= {locks} then 'lock'::procrastinate_hold end"
        return drain_rate(
            bench,
            count=count,
            analyze=analyze,
            columns=", lock, hold",
            values=f", 'lock ' || (n - 1) %% {locks}, {hold if in_batches else 'null'}",
            concurrency=CONCURRENCY,
        )
