"""W7: a drain with a crowd of other jobs in the table."""

from __future__ import annotations

from benchmarks.databases import Database
from benchmarks.measures import Measure, Sample, at_least
from benchmarks.workers import drained, idle_worker, let_look_at_schedule
from benchmarks.workload import Bench, Round, Workload
from benchmarks.workloads.drain import CONCURRENCY, JOBS, TIMED, drain_rate

WAITING = 1_000_000
FINISHED = 5_000_000

#: How each crowd is inserted: its full size, its queue, and more of its columns.
CROWDS = {
    "waiting behind": (WAITING, "default", "", ""),
    "scheduled": (
        WAITING,
        "default",
        ", hold, scheduled_at",
        ", 'schedule', now() + interval '1 day' + n * interval '1 second'",
    ),
    "foreign queue": (WAITING, "nobody's", "", ""),
    "finished": (
        FINISHED,
        "default",
        ", status, worker_id, attempts, started_at, finished_at",
        ", 'succeeded', 0, 1, now(), now()",
    ),
}


class Backlog(Workload):
    key = "W7"
    title = "W1 with a crowd of other jobs"
    short = "W1 with a crowd"
    limit = "W1 without the crowd"
    timed = TIMED + "; the table is analyzed, and the crowd inserted before (waiting: after)"
    measures = tuple(Measure(name, "jobs/s", at_least(0.9), against="W1") for name in CROWDS)
    most_rounds = 3

    def run(self, bench: Bench) -> Round:
        count = bench.scale.of(JOBS, at_least=200)
        samples = {}
        for name in CROWDS:
            limit = drain_rate(bench, count=count, concurrency=CONCURRENCY, queues=["default"])
            samples[name] = Sample(self._ours(bench, name, count), limit)
        return samples

    def _ours(self, bench: Bench, name: str, count: int) -> float:
        with (
            bench.server.database() as database,
            idle_worker(
                database, report_at=count, concurrency=CONCURRENCY, queues=["default"]
            ) as worker,
        ):
            ids = _fill(bench, database, name, count)
            bench.say(f"draining {count:,} jobs, with the crowd: {name}")
            return count / drained(database, worker, ids)


def _fill(bench: Bench, database: Database, name: str, count: int) -> range:
    """Insert a crowd; return the ids of the jobs to be drained, in front of it or beside it."""
    full, queue, columns, values = CROWDS[name]
    size = bench.scale.of(full)
    bench.say(f"inserting a crowd of {size:,}: {name}")
    in_front = name == "waiting behind"
    if not in_front:
        database.fill(size, queue=queue, columns=columns, values=values)
    let_look_at_schedule(database)
    ids = database.fill(count)
    if in_front:
        database.fill(size, queue=queue, columns=columns, values=values)
    # As autovacuum would have done: else its work, and the writing of hint bits, are timed too.
    database.run("vacuum (analyze) procrastinate_jobs")
    database.run("checkpoint")
    return ids
