"""What must be true of the stored jobs and runs, whatever happened to workers and server.

A server that crashes forgets the claims of its last moments: they are committed asynchronously,
as a lost claim costs nothing but a second run. So jobs that ran while the server crashed are held
to less.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

Query = Callable[[str], list[tuple[Any, ...]]]

#: Where the tasks record their runs.
CREATE_RUNS = """
    create table chaos_runs (
        token text primary key,
        job_id bigint not null,
        attempt integer not null,
        worker integer not null,
        began timestamptz not null,
        ended timestamptz,
        outcome text
    )
"""

#: How long before a crash of the server a commit may have been that it forgets.
FORGOTTEN = timedelta(seconds=1)
#: A job deferred so long before another one began was there for its claim to see.
SEEN_AFTER = timedelta(seconds=8)


@dataclass(frozen=True)
class Run:
    job_id: int
    attempt: int
    worker: int
    began: datetime
    ended: datetime | None
    outcome: str | None


@dataclass
class Job:
    id: int
    status: str
    attempts: int
    crashes: int
    lock: str | None
    queueing_lock: str | None
    priority: int
    deferred_at: datetime
    scheduled_at: datetime | None
    finished_at: datetime | None
    last_error: str | None
    runs: list[Run] = field(default_factory=list)
    server_crashed: bool = False

    @property
    def undisturbed(self) -> bool:
        """Whether no worker was lost with this job, and no claim of it forgotten."""
        return self.crashes == 0 and not self.server_crashed


def read(query: Query, crashes: Sequence[datetime]) -> list[Job]:
    """Return all jobs with their runs."""
    jobs = {
        row[0]: Job(*row)
        for row in query(
            "select id, status::text, attempts, crashes, lock, queueing_lock, priority,"
            " deferred_at, scheduled_at, finished_at, errors -> -1 ->> 'type'"
            " from procrastinate_jobs"
        )
    }
    for row in query(
        "select job_id, attempt, worker, began, ended, outcome from chaos_runs order by began"
    ):
        run = Run(*row)
        job = jobs[run.job_id]
        job.runs.append(run)
        until = job.finished_at or datetime.max.replace(tzinfo=run.began.tzinfo)
        if any(run.began - FORGOTTEN < crash < until + FORGOTTEN for crash in crashes):
            job.server_crashed = True
    return list(jobs.values())


def violations(jobs: Sequence[Job], query: Query) -> list[str]:
    """Return a line for each thing that must not be."""
    found = [f"{name}: job {job.id}: {job}" for name, job in _of_jobs(jobs)]
    found += _of_locks(jobs)
    found += [f"a lock left behind: {row}" for row in query("select * from procrastinate_locks")]
    return found


def _of_jobs(jobs: Sequence[Job]) -> Iterator[tuple[str, Job]]:
    for job in jobs:
        if job.status in ("todo", "doing"):
            yield "did not end", job
            continue
        good = [run for run in job.runs if run.outcome == "ok"]
        if job.status == "failed" and job.last_error not in _ALLOWED_ERRORS:
            yield "failed for a reason of the worker's", job
        if job.status == "cancelled" and job.queueing_lock is None:
            yield "cancelled without a twin", job
        if job.status == "succeeded" and not good:
            yield "succeeded without a run", job
        if not job.undisturbed:
            continue
        if any(run.began > job.finished_at for run in job.runs if job.finished_at):
            yield "ran after its end", job
        if len(good) > 1 or (good and job.runs[-1].outcome != "ok"):
            yield "ran again after a good run", job
        if len({run.attempt for run in job.runs}) != len(job.runs):
            yield "two runs of one attempt", job
        if job.attempts < len(job.runs):
            yield "fewer attempts than runs", job
        if any(one.ended and one.ended > two.began for one, two in pairwise(job.runs)):
            yield "two runs at a time", job


_ALLOWED_ERRORS = ("__main__.Planned", "procrastinate.errors.WorkerLost")


def _of_locks(jobs: Sequence[Job]) -> Iterator[str]:
    lines = defaultdict(list)
    for job in jobs:
        if job.lock is not None and job.undisturbed:
            lines[job.lock].append(job)
    for line in lines.values():
        yield from _overlaps(line)
        yield from _wrong_order(line)


def _overlaps(line: Sequence[Job]) -> Iterator[str]:
    runs = sorted((run for job in line for run in job.runs if run.ended), key=lambda r: r.began)
    for one, two in pairwise(runs):
        if one.ended is not None and one.ended > two.began and one.job_id != two.job_id:
            yield f"two at a time with one lock: {one} {two}"


def _wrong_order(line: Sequence[Job]) -> Iterator[str]:
    """Jobs that ran once and were never scheduled began in order, once both were there."""
    simple = [
        job for job in line if len(job.runs) == 1 and job.attempts == 1 and job.scheduled_at is None
    ]
    for first in simple:
        for second in simple:
            if (-first.priority, first.id) >= (-second.priority, second.id):
                continue
            began = second.runs[0].began
            if first.deferred_at + SEEN_AFTER < began < first.runs[0].began:
                yield f"out of order with one lock: {second} before {first}"
